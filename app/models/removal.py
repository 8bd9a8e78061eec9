"""Drops a model: detaches its partition of `embedding` and deletes it while searches go on.

DETACH CONCURRENTLY waits for the transactions that use the partition and blocks none. The detached
table still has foreign keys to `picture` and `model`. Dropping a foreign key needs a lock on the
other table that excludes readers, so each is dropped in a transaction of its own, which holds no
other lock that searches need. The lock is requested when no reader seems to hold the table for
long, again and again, each time with a short timeout, because searches queue behind the request.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, repeat

from sqlalchemy import Connection, Engine

from app.db import locks, timeouts
from app.db.locks import LockKey
from app.db.queries import models, partitions
from app.errors import DatabaseUnsuitable, LockHeld, NotReady
from app.types import Model

PATIENCE_S = 60.0
"""Maximum seconds of each step."""

WAITS_MS = (20, 50, 100, 200, 300)
"""Lock timeouts of the attempts, during which searches may wait; the last one is repeated."""

PAUSE = 4
"""Pause between two attempts, as a multiple of the lock timeout."""


def model_to_drop(connection: Connection, name: str) -> Model:
    """The model of this name to drop: never the active one; one that is partly dropped comes first.

    Raises UnknownModel, DatabaseUnsuitable for a role that does not own the tables, and NotReady.
    """
    if not partitions.is_owner(connection):
        raise DatabaseUnsuitable(
            "Only the role that migrates may drop a model, for it owns the tables. Nothing was "
            "changed."
        )
    active = models.active(connection)
    newest = models.resolve(connection, name)
    candidates = [each for each in models.named(connection, name) if each != active]
    if not candidates:
        raise NotReady(f"{newest.name} is the active model; activate another first.")
    begun = [each for each in candidates if not partitions.is_attached(connection, each.id)]
    if len(begun or candidates) > 1:
        which = " or ".join(f"{each.name}@{each.revision[:12]}" for each in begun or candidates)
        raise NotReady(f"Several models are called {name}; say which to drop: {which}.")
    [model] = begun or candidates
    other = partitions.model_being_detached(connection)
    if other not in (None, model):
        check_not_dropping(connection, other)
    return model


def check_not_dropping(connection: Connection, model: Model) -> None:
    """Raise NotReady for a model that is partly dropped."""
    if not partitions.is_attached(connection, model.id):
        raise NotReady(
            f"{model.name} was not completely dropped; "
            f"run `lookalike model drop {model.name}` first."
        )


def detach(engine: Engine, model: Model) -> None:
    """Detach a model's partition from `embedding`, once no transaction uses it.

    Raises LockHeld if one still does after `PATIENCE_S`; calling it again continues from there.
    """
    plain = engine.execution_options(isolation_level="AUTOCOMMIT")
    with plain.connect() as connection:
        connection.detach()  # from the pool, which must not reuse its settings
        timeouts.set_for_session(connection, statement_s=0, lock_s=PATIENCE_S)
        try:
            partitions.detach(connection, model.id)
        except LockHeld as exc:
            raise _unfinished(model) from exc


def delete(engine: Engine, model: Model) -> None:
    """Delete the detached partition of a model, if it exists. Raises LockHeld."""
    try:
        with _blocking_writers(engine) as connection:
            references = partitions.foreign_keys(connection, model.id)
        for constraint, table in references:
            _drop_reference(engine, model, constraint, table)
        with _blocking_writers(engine) as connection:
            partitions.drop(connection, model.id)
    except LockHeld as exc:
        raise _unfinished(model) from exc


def _drop_reference(engine: Engine, model: Model, constraint: str, table: str) -> None:
    until = time.monotonic() + PATIENCE_S
    for wait_ms in chain(WAITS_MS, repeat(WAITS_MS[-1])):
        while not _read_briefly(engine, table, wait_ms):
            _check_time(until)
        try:
            with _blocking_writers(engine) as connection:
                return partitions.drop_foreign_key(connection, model.id, constraint, wait_ms)
        except LockHeld:
            _check_time(until)
        time.sleep(PAUSE * wait_ms / 1000)


def _read_briefly(engine: Engine, table: str, wait_ms: int) -> bool:
    """Whether all current readers of a table finish within `wait_ms`.

    If not, requesting the lock would time out and make searches wait for nothing.
    """
    plain = engine.execution_options(isolation_level="AUTOCOMMIT")
    with plain.connect() as connection:
        before = partitions.other_lock_holders(connection, table)
        time.sleep(wait_ms / 1000)
        return before.isdisjoint(partitions.other_lock_holders(connection, table))


def _check_time(until: float) -> None:
    if time.monotonic() > until:
        raise LockHeld()


@contextmanager
def _blocking_writers(engine: Engine) -> Iterator[Connection]:
    """A transaction that blocks writers of the catalogue.

    A writer's batch takes longer than searches may wait behind a lock request.
    """
    with locks.transaction(engine) as connection:
        timeouts.set_for_transaction(connection, statement_s=0, lock_s=PATIENCE_S)
        locks.acquire(connection, LockKey.CATALOG_WRITE)
        yield connection


def _unfinished(model: Model) -> LockHeld:
    return LockHeld(
        f"{model.name} is not completely dropped: another session, such as a backup, a build or a "
        f"query of an analyst, reads the tables for longer than {PATIENCE_S:g} s. Searches "
        f"continue. When it has ended, run `lookalike model drop {model.name}` again; it continues "
        "from there."
    )
