"""What psycopg raises, said again as an error that tells what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy.engine import ExceptionContext

from app.errors import (
    DatabaseUnavailable,
    DatabaseUnsuitable,
    LockHeld,
    LookalikeError,
    ReplicaConflict,
    SchemaMismatch,
)


@contextmanager
def driver_errors() -> Iterator[None]:
    """Translate what psycopg raises where it is used without SQLAlchemy: COPY, trips."""
    try:
        yield
    except psycopg.Error as exc:
        raise _kind(exc) or exc from exc


def translate(context: ExceptionContext) -> None:
    """Raise our error for what SQLAlchemy met; for its event `handle_error`."""
    if context.is_pre_ping:
        return  # the pool replaces the connection by itself
    found = context.original_exception
    if isinstance(found, psycopg.Error):
        connecting = context.connection is None
        kind = _unreachable(found) if connecting else _kind(found)
        if kind is not None:
            raise kind from found


def _kind(exc: psycopg.Error) -> LookalikeError | None:
    said = str(exc).strip()
    if isinstance(exc, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        return SchemaMismatch(
            f"The database lacks a table or a column ({said}). Run `lookalike migrate`."
        )
    if isinstance(exc, psycopg.errors.LockNotAvailable):
        return LockHeld(f"Another session holds a lock for too long ({said}). Try again.")
    if isinstance(exc, psycopg.errors.DeadlockDetected):
        return LockHeld("Two sessions waited for each other, and this one was ended. Try again.")
    if isinstance(exc, psycopg.errors.QueryCanceled):
        return DatabaseUnavailable(f"PostgreSQL took too long and was stopped ({said}).")
    if isinstance(exc, psycopg.errors.InsufficientPrivilege):
        lacking = exc.diag.message_primary or said
        return DatabaseUnsuitable(
            f"This user of the database lacks a right: {lacking}. Run it as a role that may, or "
            "grant it; `lookalike db roles` says what each role needs."
        )
    if isinstance(exc, psycopg.errors.ReadOnlySqlTransaction):
        return DatabaseUnsuitable(
            "This database is read-only, as a replica is; nothing was written."
        )
    if isinstance(exc, psycopg.errors.SerializationFailure) and "recovery" in said:
        return ReplicaConflict(
            "The replica ended this search because it held up changes of the primary. Try again; "
            "if it happens often, raise max_standby_streaming_delay on the replica."
        )
    if (exc.sqlstate or "")[:2] == "53":
        return DatabaseUnavailable(f"PostgreSQL ran out of something: {said}. Make room.")
    lost = isinstance(exc, psycopg.OperationalError) and (
        exc.sqlstate is None or exc.sqlstate[:2] in ("08", "57")
    )
    return _unreachable(exc) if lost else None


def _unreachable(exc: psycopg.Error) -> DatabaseUnavailable:
    said = " ".join(str(exc).split()).rstrip(".?")
    return DatabaseUnavailable(
        f"PostgreSQL cannot be reached: {said}. Check LOOKALIKE_DATABASE_URL and that the server "
        "runs, then try again."
    )
