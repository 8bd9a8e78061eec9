"""Repairs of rows: only those by which nothing can be lost. Each is transactions of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text

from app.catalog import bulk_load
from app.db import locks, notifications
from app.db.locks import LockKey
from app.db.queries import change_stamps, database_info, ingest_runs, integrity, pictures
from app.db.queries.change_stamps import StampTrigger

AT_ONCE = 1000
"""Rows a transaction, so that writers need not wait long."""


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction of the one writer, however long it takes; workers are told of it."""
    with locks.transaction(engine) as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        locks.acquire(connection, LockKey.CATALOG_WRITE)
        yield connection
        notifications.notify(connection)


def sweep(engine: Engine) -> str:
    """Delete pictures that no product shows; with the lock held nobody is about to show them."""
    swept = 0
    while True:
        with writing(engine) as connection:
            found = integrity.pictures_without_product(connection, AT_ONCE)
            swept += pictures.sweep(connection, found)
        if len(found) < AT_ONCE:
            return f"{swept} pictures were swept"


def switch_on(engine: Engine, stamp: StampTrigger) -> str:
    """Make the stamp trigger of a table what it must be."""
    with writing(engine) as connection:
        change_stamps.enable(connection, stamp)
    return f"the trigger {stamp.trigger} is on again; builds made before are not used any more"


def stamp_anew(engine: Engine, stamp: StampTrigger) -> str:
    """Give rows from the future the number of now."""
    renewed = 0
    while True:
        with writing(engine) as connection:
            found = change_stamps.restamp(connection, stamp, AT_ONCE)
        renewed += found
        if not found:
            return f"{renewed} rows of {stamp.table} were stamped anew"


def give_up_runs(engine: Engine) -> str:
    """Record that loads which nobody ended have failed."""
    with engine.begin() as connection:
        return f"{ingest_runs.fail_abandoned(connection)} loads were recorded as failed"


def make_hnsw(engine: Engine) -> str:
    """Make the indexes of pgvector that an interrupted load left off."""
    made = bulk_load.finish(engine)
    return f"pgvector's index was made of {', '.join(model.name for model in made) or 'none'}"


def analyse(engine: Engine) -> str:
    """Let the planner look at the tables it never saw."""
    with engine.begin() as connection:
        names = integrity.never_analysed(connection)
        database_info.analyse(connection, names)
    return f"{', '.join(names)} analysed"
