"""Translates psycopg's errors into ours, whose messages name a remedy."""

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
    """Translate errors where psycopg is used without SQLAlchemy: COPY and pipelines."""
    try:
        yield
    except psycopg.Error as exc:
        raise _translated(exc) or exc from exc


def translate(context: ExceptionContext) -> None:
    """Handler of SQLAlchemy's event `handle_error`: raises our error instead of psycopg's."""
    if context.is_pre_ping:
        return  # the pool replaces the connection
    original = context.original_exception
    if isinstance(original, psycopg.Error):
        connecting = context.connection is None
        error = _unreachable(original) if connecting else _translated(original)
        if error is not None:
            raise error from original


def _translated(exc: psycopg.Error) -> LookalikeError | None:
    message = str(exc).strip()
    if isinstance(exc, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        return SchemaMismatch(
            f"The database lacks a table or a column ({message}). Run `lookalike migrate`."
        )
    if isinstance(exc, psycopg.errors.LockNotAvailable):
        return LockHeld(f"Another session holds a lock for too long ({message}). Try again.")
    if isinstance(exc, psycopg.errors.DeadlockDetected):
        return LockHeld("Two sessions waited for each other, and this one was ended. Try again.")
    if isinstance(exc, psycopg.errors.QueryCanceled):
        return DatabaseUnavailable(
            f"PostgreSQL took too long and canceled the statement ({message})."
        )
    if isinstance(exc, psycopg.errors.InsufficientPrivilege):
        lacking = exc.diag.message_primary or message
        return DatabaseUnsuitable(
            f"This user of the database lacks a right: {lacking}. Use a role that has it, or "
            "grant it; `lookalike db roles` shows what each role needs."
        )
    if isinstance(exc, psycopg.errors.ReadOnlySqlTransaction):
        return DatabaseUnsuitable(
            "This database is read-only, as a replica is; nothing was written."
        )
    if isinstance(exc, psycopg.errors.SerializationFailure) and "recovery" in message:
        return ReplicaConflict(
            "The replica ended this search because it delayed changes of the primary. Try again; "
            "if it happens often, raise max_standby_streaming_delay on the replica."
        )
    if (exc.sqlstate or "")[:2] == "53":
        return DatabaseUnavailable(
            f"PostgreSQL ran out of disk space, memory or connections: {message}. Make room."
        )
    lost = isinstance(exc, psycopg.OperationalError) and (
        exc.sqlstate is None or exc.sqlstate[:2] in ("08", "57")
    )
    return _unreachable(exc) if lost else None


def _unreachable(exc: psycopg.Error) -> DatabaseUnavailable:
    message = " ".join(str(exc).split()).rstrip(".?")
    return DatabaseUnavailable(
        f"PostgreSQL cannot be reached: {message}. Check LOOKALIKE_DATABASE_URL and that the "
        "server runs, then try again."
    )
