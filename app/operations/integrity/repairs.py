"""Repairs of rows that cannot lose data. Each repair runs in its own transactions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from app.catalog import fallback_index
from app.db import locks, notifications, timeouts
from app.db.locks import LockKey
from app.db.queries import (
    change_stamps,
    database_info,
    ingest_runs,
    integrity,
    pictures,
    search_events,
)
from app.db.queries.change_stamps import StampTrigger

BATCH = 1000
"""Rows per transaction, so that writers do not wait long."""


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction of the one writer, however long it takes; workers are told of it."""
    with locks.transaction(engine) as connection:
        timeouts.set_for_transaction(connection, statement_s=0)
        locks.acquire(connection, LockKey.CATALOG_WRITE)
        yield connection
        notifications.notify(connection)


def drop_old_events(engine: Engine, days: float) -> str:
    """Drop the days of searches and events that are older than so many days."""
    with engine.begin() as connection:
        return f"{search_events.drop_partitions(connection, days)} were deleted"


def sweep(engine: Engine) -> str:
    """Delete pictures that no product shows; the write lock keeps writers from linking them."""
    swept = 0
    while True:
        with writing(engine) as connection:
            unshown = integrity.pictures_without_product(connection, BATCH)
            swept += pictures.sweep(connection, unshown)
        if len(unshown) < BATCH:
            return f"{swept} pictures were swept"


def enable_stamp(engine: Engine, stamp: StampTrigger) -> str:
    """Create or enable the stamp trigger of a table."""
    with writing(engine) as connection:
        change_stamps.enable(connection, stamp)
    return f"the trigger {stamp.trigger} is on again; builds made before are not used any more"


def restamp(engine: Engine, stamp: StampTrigger) -> str:
    """Stamp rows that carry transaction ids of the future with the current one."""
    renewed = 0
    while True:
        with writing(engine) as connection:
            rows = change_stamps.restamp(connection, stamp, BATCH)
        renewed += rows
        if not rows:
            return f"{renewed} rows of {stamp.table} were restamped"


def fail_abandoned_runs(engine: Engine) -> str:
    """Record unfinished loads as failed."""
    with engine.begin() as connection:
        return f"{ingest_runs.fail_abandoned(connection)} loads were recorded as failed"


def maintain_fallback(engine: Engine) -> str:
    """Build pgvector's indexes that are missing."""
    made = fallback_index.maintain(engine)
    return f"pgvector's index was made of {', '.join(model.name for model in made) or 'none'}"


def analyse(engine: Engine) -> str:
    """Run ANALYZE on tables without statistics."""
    with engine.begin() as connection:
        names = integrity.never_analysed(connection)
        database_info.analyse(connection, names)
    return f"{', '.join(names)} analysed"
