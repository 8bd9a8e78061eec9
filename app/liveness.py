"""Whether a process that runs on and on is well: the database answers, and work got done lately."""

from __future__ import annotations

import threading
import time

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from app.errors import LookalikeError
from app.health import Check, Status

ASKED_S = 1.0
"""The database is asked no more often than this, however many ask us."""


class Liveness:
    """What /healthz says of one process; safe to use from several threads.

    `stale_s`: after so many seconds without `succeeded` it is not well; None: it need not say so.
    """

    def __init__(self, engine: Engine, stale_s: float | None = None) -> None:
        self._engine = engine
        self._stale_s = stale_s
        self._lock = threading.Lock()
        self._asked = float("-inf")
        self._database = Check("database", None)
        self._succeeded = time.monotonic()
        self._error: str | None = None

    def succeeded(self) -> None:
        """What this process is for was done."""
        self._succeeded = time.monotonic()
        self._error = None

    def failed(self, error: str) -> None:
        """It was tried, and this is why it was not done."""
        self._error = error

    def status(self) -> Status:
        """The checks as they are now."""
        with self._lock:
            if time.monotonic() - self._asked >= ASKED_S:
                self._database = self._ask()
                self._asked = time.monotonic()
            database = self._database
        if self._stale_s is None:
            return Status((database,))
        return Status((database, self._success(self._stale_s), Check("last_error", self._error)))

    def _success(self, stale_s: float) -> Check:
        ago = time.monotonic() - self._succeeded
        advice = None
        if ago > stale_s:
            advice = f"Nothing succeeded for {stale_s:g} s. {self._error or 'No error was met.'}"
        return Check("last_success_seconds", round(ago, 1), advice is None, advice)

    def _ask(self) -> Check:
        try:
            with self._engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except (LookalikeError, SQLAlchemyError) as exc:
            return Check("database", None, False, str(exc))
        return Check("database", "reachable")
