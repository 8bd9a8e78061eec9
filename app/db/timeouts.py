"""Timeouts of statements and of lock waits, for one transaction or for one session."""

from __future__ import annotations

from sqlalchemy import Connection, text

STATEMENT = "statement_timeout"
LOCK = "lock_timeout"


def set_for_transaction(
    connection: Connection, *, statement_s: float | None = None, lock_s: float | None = None
) -> None:
    """Set timeouts in seconds until the transaction ends. 0 is no timeout; None keeps the setting.

    A statement that exceeds `lock_s` raises LockHeld.
    """
    _set(connection, "SET LOCAL", statement_s, lock_s)


def set_for_session(
    connection: Connection, *, statement_s: float | None = None, lock_s: float | None = None
) -> None:
    """The same until `reset` or the end of the session."""
    _set(connection, "SET", statement_s, lock_s)


def no_idle_timeout(connection: Connection) -> None:
    """Let the session be idle in this transaction for any time."""
    connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))


def reset(connection: Connection) -> None:
    """Restore the timeouts that the session started with."""
    for name in (STATEMENT, LOCK):
        connection.execute(text(f"RESET {name}"))


def _set(
    connection: Connection, command: str, statement_s: float | None, lock_s: float | None
) -> None:
    for name, seconds in ((STATEMENT, statement_s), (LOCK, lock_s)):
        if seconds is not None:
            connection.execute(text(f"{command} {name} = {round(seconds * 1000)}"))
