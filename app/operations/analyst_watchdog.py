"""The watchdog: ends analysts' sessions that would block other users.

An analyst can raise every limit of their session and take the advisory locks of writers, builders
and migrations, so limits must be enforced from outside the session.
"""

from __future__ import annotations

import logging

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from app.concurrency import BackgroundLoop
from app.db.queries import analyst_sessions
from app.db.queries.analyst_sessions import EndedSession
from app.errors import LookalikeError

EVERY_S = 5.0
"""Seconds between two checks: the longest time that an analyst can hold a lock others wait for."""

_log = logging.getLogger("lookalike.watchdog")


def end_overdue(connection: Connection, limit_s: float) -> list[EndedSession]:
    """End sessions of analysts that hold or wait for an advisory lock, whose statement or
    transaction has run longer than `limit_s` seconds, or that exceed the connection limit of their
    role; returns the ended sessions.

    Sessions that this user may not end are skipped.
    """
    return analyst_sessions.end_overdue(connection, limit_s)


class AnalystWatchdog(BackgroundLoop):
    """Ends overdue sessions every `every_s` seconds, in a thread of its own.

    Not in the worker's thread, which a build keeps busy for as long as it takes.
    """

    def __init__(self, engine: Engine, limit_s: float, every_s: float = EVERY_S) -> None:
        super().__init__(
            self._check_sessions,
            every_s,
            name="watchdog",
            log=_log,
            failure="analysts are not watched for now",
            expected=(LookalikeError, SQLAlchemyError),
        )
        self._engine = engine
        self._limit_s = limit_s

    def _check_sessions(self) -> str:
        """End overdue sessions; returns a warning about those that cannot be ended."""
        # Within one transaction the server shows the same sessions again and again.
        engine = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for ended in end_overdue(connection, self._limit_s):
                _log.warning(
                    "ended a session of the analyst %s (pid %d): %s",
                    ended.user, ended.pid, ended.reason,
                )  # fmt: skip
            unreachable = _unreachable_text(analyst_sessions.uncontrolled_users(connection))
            return unreachable or _prepared_text(analyst_sessions.prepared_transactions(connection))


def _unreachable_text(users: list[str]) -> str:
    if not users:
        return ""
    return (
        f"sessions of analysts ({', '.join(users)}) cannot be watched or ended by this user; let a "
        "superuser GRANT pg_read_all_stats, pg_signal_backend to it"
    )


def _prepared_text(prepared: list[tuple[str, str]]) -> str:
    if not prepared:
        return ""
    name, owner = prepared[0]
    return (
        f"the analyst {owner} prepared the transaction {name!r}, which holds its locks and keeps "
        "rows from being cleaned up without any session; let its owner or a superuser ROLLBACK "
        "PREPARED it in this database, and set max_prepared_transactions to 0 if nothing needs it"
    )
