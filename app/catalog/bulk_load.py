"""Bulk loads: drop the HNSW index where a rebuild is faster, and build missing indexes.

Adding a row to the index takes several times as long as its share of a build. While the index is
missing, searches that would use it compare all embeddings and report it. After an interruption the
index is built by the next load, `lookalike migrate`, `lookalike check --repair` or the worker.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from sqlalchemy import Connection, Engine

from app.db import locks
from app.db.queries import database_info, embeddings, hnsw_index, integrity
from app.errors import LockHeld, LookalikeError
from app.types import Model, ProgressCallback

MIN_ROWS = 5000
"""The index is dropped only for at least this many added embeddings; fewer take seconds."""

MAX_ROWS = 1_000_000
"""The index stays above this many stored embeddings: comparing more takes over a second."""

BUILD_COST = 0.3
"""Time per row of a build, as a share of that of an insertion (bench/ingest/writes.py)."""

MAX_TRIES = 10
PAUSE_S = 0.2
"""Seconds between two attempts to drop the index."""

_log = logging.getLogger("lookalike.bulk")


def is_rebuild_faster(rows: int, added: int, fits: int) -> bool:
    """Whether building the index from all rows is faster than adding `added` rows to `rows`.

    `fits` is the number of rows that a build keeps in memory; it inserts the rest one by one.
    """
    whole = rows + added
    beyond = max(0, whole - fits)
    return added >= MIN_ROWS and rows <= MAX_ROWS and BUILD_COST * (whole - beyond) + beyond < added


@contextmanager
def bulk(
    engine: Engine, models: Sequence[Model], added: int, notify: ProgressCallback = _log.info
) -> Iterator[None]:
    """Run a load that adds about `added` embeddings under each of these models.

    Where it is faster and this user owns the tables, the index is dropped, and built when the load
    ends, also with a LookalikeError. After another interruption it stays missing, which `lookalike
    status` reports.
    """
    try:
        with _loading(engine, models, added, notify):
            yield
    except LookalikeError:
        _finish(engine, notify)
        raise
    except BaseException:
        _log_missing(engine)
        raise
    _finish(engine, notify)


def build_missing(engine: Engine, notify: ProgressCallback = _log.info) -> list[Model]:
    """Build missing indexes, except those that a running load dropped; returns their models.

    Searches and writers continue. Waits for all open transactions, however long they take.
    """
    built = []
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection:
        for model in hnsw_index.models_without_index(connection):
            if hnsw_index.is_owner(connection, model.id) and _build(connection, model, notify):
                built.append(model)
    return built


def analyse_new(engine: Engine) -> None:
    """Give PostgreSQL's planner statistics of tables that were just filled and have none yet.

    Autovacuum would do it within a minute. A table that another session is changing is left to it,
    and an error is logged, since the rows are stored in any case.
    """
    try:
        with engine.begin() as connection:
            if names := integrity.never_analysed(connection):
                database_info.analyse(connection, names, skip_locked=True)
    except LookalikeError as exc:
        _log.warning("Tables could not be analysed: %s", exc)


def _build(connection: Connection, model: Model, notify: ProgressCallback) -> bool:
    with locks.hnsw_index(connection, model.id, exclusive=True) as acquired:
        if not acquired or hnsw_index.is_usable(connection, model.id):
            return False
        notify(f"Building pgvector's index of {model.name}; searches and writers continue.")
        hnsw_index.create(connection, model)
        return True


def _finish(engine: Engine, notify: ProgressCallback) -> None:
    """Build the index after a load; an error is logged, since the rows are stored in any case."""
    try:
        build_missing(engine, notify)
    except LookalikeError as exc:
        _log.warning(
            "pgvector's index could not be built: %s Searches that need it compare all embeddings "
            "until `lookalike check --repair` or the worker builds it.", exc,
        )  # fmt: skip


def _log_missing(engine: Engine) -> None:
    """Log the missing indexes; an interrupted load does not build them."""
    with suppress(LookalikeError), engine.connect() as connection:
        for model in hnsw_index.models_without_index(connection):
            _log.warning(
                "pgvector's index of %s is missing; the next load, the worker or `lookalike check "
                "--repair` builds it. Until then searches that need it compare all embeddings.",
                model.name,
            )


@contextmanager
def _loading(
    engine: Engine, models: Sequence[Model], added: int, notify: ProgressCallback
) -> Iterator[None]:
    """Hold the HNSW locks, so that no other process builds an index that this load dropped."""
    if added < MIN_ROWS:
        yield
        return
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection, ExitStack() as held:
        for model in models:
            if held.enter_context(locks.hnsw_index(connection, model.id, exclusive=False)):
                _drop_if_faster(engine, model, added, notify)
        yield


def _drop_if_faster(engine: Engine, model: Model, added: int, notify: ProgressCallback) -> None:
    """Drop the index of a model if this user may and a rebuild is faster."""
    with engine.connect() as connection:
        if not (
            hnsw_index.is_usable(connection, model.id) and hnsw_index.is_owner(connection, model.id)
        ):
            return
        rows = embeddings.count_up_to(connection, model, at_most=MAX_ROWS + 1)
        if not is_rebuild_faster(rows, added, hnsw_index.rows_in_memory(connection, model)):
            return
    if _drop(engine, model):
        notify(f"pgvector's index of {model.name} is dropped until {added:,} pictures are loaded.")


def _drop(engine: Engine, model: Model) -> bool:
    """Drop the index; False if other sessions read the table all the time, as a backup does."""
    for left in reversed(range(MAX_TRIES)):
        try:
            with engine.begin() as connection:
                hnsw_index.drop(connection, model.id)
            return True
        except LockHeld:
            if left:
                time.sleep(PAUSE_S)
    return False
