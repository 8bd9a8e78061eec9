"""Dropping: takes the partition of a model out of the table and deletes it; searches go on.

The partition is detached concurrently: that waits for those who use it, and nobody waits for it.
Alone it still refers to `picture` and `model`. PostgreSQL takes such a reference away only while
nobody reads the other table, so each goes in a transaction of its own: who waits for one table and
holds none that others want ends nobody's search. It asks while nobody reads for long, again and
again, each time for so short a while that those who wait behind it hardly notice.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, repeat

from sqlalchemy import Connection, Engine, text

from app.db import locks
from app.db.locks import LockKey
from app.db.queries import models, partitions
from app.errors import DatabaseUnsuitable, LockHeld, NotReady
from app.types import Model

PATIENCE_S = 60.0
"""How long each step is tried."""

WAITS_MS = (20, 50, 100, 200, 300)
"""How long an attempt may hold searches up; the last counts for all that follow."""

PAUSE = 4
"""Between two attempts searches run undisturbed for so many times as long."""


def chosen(connection: Connection, name: str) -> Model:
    """The model of this name that may be dropped: not the active one, and one whose dropping was
    begun before others."""
    if not partitions.is_owner(connection):
        raise DatabaseUnsuitable(
            "Only the role that migrates may drop a model, for it owns the tables. Nothing was "
            "changed."
        )
    active = models.active(connection)
    newest = models.resolve(connection, name)
    beside = [each for each in models.named(connection, name) if each != active]
    if not beside:
        raise NotReady(f"{newest.name} is the active model; activate another first.")
    begun = [each for each in beside if not partitions.is_attached(connection, each.id)]
    if len(begun or beside) > 1:
        which = " or ".join(f"{each.name}@{each.revision[:12]}" for each in begun or beside)
        raise NotReady(f"Several models are called {name}; say which to drop: {which}.")
    [model] = begun or beside
    other = partitions.model_being_detached(connection)
    if other not in (None, model):
        check_whole(connection, other)
    return model


def check_whole(connection: Connection, model: Model) -> None:
    """Raise NotReady for a model whose dropping was begun and not finished."""
    if not partitions.is_attached(connection, model.id):
        raise NotReady(
            f"{model.name} was not wholly dropped; run `lookalike model drop {model.name}` first."
        )


def detach(engine: Engine, model: Model) -> None:
    """Take a model's partition out of `embedding`, once nobody uses it any more.

    Raises LockHeld where somebody still does after `PATIENCE_S`; then it goes on from there.
    """
    plain = engine.execution_options(isolation_level="AUTOCOMMIT")
    with plain.connect() as connection:
        connection.detach()  # from the pool: others are not to inherit its settings
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text(f"SET lock_timeout = {round(PATIENCE_S * 1000)}"))
        try:
            partitions.detach(connection, model.id)
        except LockHeld as exc:
            raise _unfinished(model) from exc


def delete(engine: Engine, model: Model) -> None:
    """Delete the detached partition of a model, if it is still there. Raises LockHeld."""
    try:
        with _alone(engine) as connection:
            references = partitions.foreign_keys(connection, model.id)
        for constraint, table in references:
            _drop_reference(engine, model, constraint, table)
        with _alone(engine) as connection:
            partitions.drop(connection, model.id)
    except LockHeld as exc:
        raise _unfinished(model) from exc


def _drop_reference(engine: Engine, model: Model, constraint: str, table: str) -> None:
    until = time.monotonic() + PATIENCE_S
    for wait_ms in chain(WAITS_MS, repeat(WAITS_MS[-1])):
        while not _read_briefly(engine, table, wait_ms):
            _check_time(until)
        try:
            with _alone(engine) as connection:
                return partitions.drop_foreign_key(connection, model.id, constraint, wait_ms)
        except LockHeld:
            _check_time(until)
        time.sleep(PAUSE * wait_ms / 1000)


def _read_briefly(engine: Engine, table: str, wait_ms: int) -> bool:
    """Whether all who read a table are done with it a moment later. Else to wait for it would hold
    searches up for nothing."""
    plain = engine.execution_options(isolation_level="AUTOCOMMIT")
    with plain.connect() as connection:
        before = partitions.other_lock_holders(connection, table)
        time.sleep(wait_ms / 1000)
        return before.isdisjoint(partitions.other_lock_holders(connection, table))


def _check_time(until: float) -> None:
    if time.monotonic() > until:
        raise LockHeld()


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """A transaction that writers wait outside of: a batch of theirs takes longer than searches,
    which queue behind whoever waits for it, may be held up."""
    with locks.transaction(engine) as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text(f"SET LOCAL lock_timeout = {round(PATIENCE_S * 1000)}"))
        locks.acquire(connection, LockKey.CATALOG_WRITE)
        yield connection


def _unfinished(model: Model) -> LockHeld:
    return LockHeld(
        f"{model.name} is not wholly dropped: somebody has been reading the tables for longer than "
        "this waits, as a backup, a build or a query of an analyst does. Searches go on. When it "
        f"is over, run `lookalike model drop {model.name}` again; it goes on from there."
    )
