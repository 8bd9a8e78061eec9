"""Keeps pgvector's index of each model: builds it, measures it, and builds it again as rows grow.

The index answers where no build of FAISS can. Adding a row to its inverted lists costs little, so
loads and writers need not know of it. While there is no measured index, searches that would use it
compare all embeddings and say so. Whatever an interruption leaves is finished by the next ingest,
`lookalike migrate`, `lookalike check --repair` or the worker.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine

from app.db import locks
from app.db.queries import embeddings, nearest, pgvector_index, query_samples
from app.db.queries.pgvector_index import Figures, PgvectorIndex
from app.errors import LookalikeError
from app.index.embedding_reader import open_embeddings
from app.index.recall import RecallBenchmark
from app.types import Model, ProgressCallback, Vectors

GROWTH = 2
"""An index is built again when its model has this many times the rows of its build: lists get
longer with each row, and searches slower."""

GOAL = 0.985
"""recall@10 (0 to 1) with which the number of probed lists is chosen. A query is a picture of the
catalogue, and what counts are the ten nearest others, as for a photo of a new product: photos of
products that the catalogue has are easier."""

DEPTH = 10
"""The k of that recall."""

QUERIES = 200
"""Queries that it is measured with; the standard error of a recall of 0.985 is below 0.5 %."""

STEP = 1.5
"""Factor between two numbers of probes that are tried."""

_log = logging.getLogger("lookalike.fallback")


def maintain(engine: Engine, notify: ProgressCallback = _log.info) -> list[Model]:
    """Build, measure and replace pgvector's indexes where it is due; returns their models.

    Searches and writers continue. Waits for all open transactions, however long they take. Does
    nothing for a model that another process works on, or whose table this user does not own.
    """
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection:
        return [
            model
            for model in pgvector_index.attached_models(connection)
            if pgvector_index.is_owner(connection, model.id)
            and _maintain(engine, connection, model, notify)
        ]


def maintain_after_load(engine: Engine, notify: ProgressCallback = _log.info) -> None:
    """The same at the end of a load; an error is logged, since the rows are stored in any case."""
    try:
        maintain(engine, notify)
    except LookalikeError as exc:
        _log.warning(
            "pgvector's index could not be built: %s Searches that need it compare all embeddings "
            "until `lookalike check --repair` or the worker builds it.", exc,
        )  # fmt: skip


def _maintain(
    engine: Engine, connection: Connection, model: Model, notify: ProgressCallback
) -> bool:
    if not _State.of(connection, model).is_work:
        return False
    with locks.pgvector_index(connection, model.id) as acquired:
        state = _State.of(connection, model)  # another process may have done it
        if not acquired or not state.is_work:
            return False
        if state.is_due:
            index = state.unmeasured or _build(connection, model, state, notify)
            _measure(engine, model, index)
            state = _State.of(connection, model)
        for index in state.unneeded:
            notify(f"Dropping the index {index.name}, once the transactions open now have ended.")
            pgvector_index.drop(connection, index.name)
    return True


@dataclass(frozen=True, slots=True)
class _State:
    """The indexes of a model, and whether a new one is due."""

    indexes: list[PgvectorIndex]
    is_due: bool

    @classmethod
    def of(cls, connection: Connection, model: Model) -> _State:
        indexes = pgvector_index.all_of(connection, model.id)
        figures = [each.figures for each in indexes if each.valid and each.figures]
        rows = max([GROWTH * each.rows for each in figures], default=0)
        rows = max(rows, pgvector_index.MIN_ROWS)
        return cls(indexes, pgvector_index.has_rows(connection, model, rows))

    @property
    def current(self) -> PgvectorIndex | None:
        """The index that searches use."""
        return next((each for each in self.indexes if each.valid and each.figures), None)

    @property
    def unmeasured(self) -> PgvectorIndex | None:
        """A complete index that only has to be measured, such as that of a restored dump."""
        whole = (each for each in self.indexes if each.valid and each.slot and not each.figures)
        return next(whole, None) if self.is_due else None

    @property
    def unneeded(self) -> list[PgvectorIndex]:
        """Indexes that no search uses or will use: replaced, incomplete, or of another version."""
        return [each for each in self.indexes if each not in (self.current, self.unmeasured)]

    @property
    def is_work(self) -> bool:
        return self.is_due or bool(self.unneeded)


def _build(
    connection: Connection, model: Model, state: _State, notify: ProgressCallback
) -> PgvectorIndex:
    """Build an index in the slot that searches do not use."""
    used = state.current.slot if state.current else 0
    slot = next(slot for slot in pgvector_index.SLOTS if slot != used)
    notify(f"Building pgvector's index of {model.name}; searches and writers continue.")
    rows = embeddings.count_all(connection, model)
    pgvector_index.create(connection, model, slot, rows)
    indexes = pgvector_index.all_of(connection, model.id)
    return next(each for each in indexes if each.slot == slot)


def _measure(engine: Engine, model: Model, index: PgvectorIndex) -> None:
    """Choose the smallest number of probes that reaches GOAL, and let searches use the index."""
    with engine.connect() as connection:
        real = query_samples.read(connection, model)
    with open_embeddings(engine, model) as source:
        benchmark = RecallBenchmark(
            source, (DEPTH + 1,), real=real, sample=QUERIES, filtered=False, noise=0.0
        )
        with engine.connect() as connection:
            searched = _ProbedIndex(connection, model, index, source.rows, 1)
            while (
                recall := _recall_of_others(benchmark.recall(searched, DEPTH + 1))
            ) < GOAL and searched.probes < index.lists:
                searched = searched.deeper()
    figures = Figures(
        source.rows, index.lists, searched.probes, round(recall, 4), len(benchmark.queries)
    )
    with engine.begin() as connection:
        pgvector_index.save_figures(connection, model.id, index, figures)


def _recall_of_others(recall: float) -> float:
    """recall@DEPTH of the pictures nearest to one, from the recall@(DEPTH + 1) with itself, which
    every index finds. A little too low for the queries that are photos of users."""
    return ((DEPTH + 1) * recall - 1) / DEPTH


@dataclass(frozen=True, slots=True)
class _ProbedIndex:
    """An index with a number of probes, as `RecallBenchmark` searches it."""

    connection: Connection
    model: Model
    index: PgvectorIndex
    rows: int
    probes: int

    def deeper(self) -> _ProbedIndex:
        """The same with the next number of probes."""
        probes = min(max(self.probes + 1, int(STEP * self.probes)), self.index.lists)
        return _ProbedIndex(self.connection, self.model, self.index, self.rows, probes)

    def pool(self, depth: int) -> int:
        """As many rows as are wanted: distances are exact."""
        return depth

    def search(
        self, queries: Vectors, k: int, depth: int | None = None
    ) -> tuple[None, NDArray[np.int64]]:
        """The ids of about the `k` nearest pictures of each query, (len(queries), k)."""
        return None, nearest.probed_ids(
            self.connection, self.model, self.index.slot, self.probes, queries, k
        )
