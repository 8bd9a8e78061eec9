"""Waiting for word of a change: LISTEN on a connection of its own that is made anew when lost."""

from __future__ import annotations

import logging
import threading
from typing import Any

import psycopg
from sqlalchemy import Engine

from app.db.engine import connection_parameters
from app.db.notifications import CHANNEL

RETRY_S = 2.0
"""Between two attempts to connect."""

# A host that vanished says nothing; without keepalives it is missed after two hours.
PATIENCE = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}

OWN: dict[str, Any] = {"autocommit": True, "fallback_application_name": "lookalike worker"}

GLANCE_S, GLANCES = 0.01, 20
"""How often, and how long each time, it is seen whether more was said; whoever goes on longer
without a pause floods the channel."""

_log = logging.getLogger("lookalike.worker")


class ChangeListener:
    """Hears of changes in the database that an engine leads to."""

    def __init__(self, engine: Engine, stop: threading.Event) -> None:
        self._engine = engine
        self._stop = stop
        self._connection: psycopg.Connection | None = None
        self._lost = False

    def wait(self, seconds: float) -> bool:
        """Wait for word of a change, at most so long; whether it came.

        Returns at once after it connected, for what was said before was missed.
        """
        try:
            if self._connection is None:
                self._connect()
                return True
            heard = any(self._connection.notifies(timeout=seconds, stop_after=1))
            if heard and not self._drained(self._connection):
                self.close()  # what is left unread would fill the queue of the whole server
            return heard
        except psycopg.Error as exc:
            self._lose(exc)
            self._stop.wait(min(seconds, RETRY_S))
            return False

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @staticmethod
    def _drained(connection: psycopg.Connection) -> bool:
        """Take what else was said meanwhile; whether that was all."""
        return any(not list(connection.notifies(timeout=GLANCE_S)) for _ in range(GLANCES))

    def _connect(self) -> None:
        named = PATIENCE | connection_parameters(self._engine) | OWN
        self._connection = psycopg.connect(**named)
        self._connection.execute(f"LISTEN {CHANNEL}")
        if self._lost:
            _log.info("listening for changes again")
        self._lost = False

    def _lose(self, exc: psycopg.Error) -> None:
        """Said once, however many attempts it takes."""
        if not self._lost:
            _log.warning("no word of changes for now: %s", " ".join(str(exc).split()))
        self._lost = True
        self.close()
