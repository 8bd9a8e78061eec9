"""Waits for change notifications: LISTEN on a dedicated connection that is reopened when lost."""

from __future__ import annotations

import logging
import threading
from typing import Any

import psycopg
from sqlalchemy import Engine

from app.db import notifications
from app.db.engine import connection_parameters

RETRY_S = 2.0
"""Seconds between two attempts to connect."""

# Without keepalives, the loss of a host that vanished would be noticed after two hours.
KEEPALIVE = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}

SESSION: dict[str, Any] = {"autocommit": True, "fallback_application_name": "lookalike worker"}

DRAIN_S, MAX_DRAINS = 0.01, 20
"""Pending notifications are read in rounds of this many seconds, at most so many; if there are
still more, the channel is flooded."""

_log = logging.getLogger("lookalike.worker")


class ChangeListener:
    """Receives change notifications of an engine's database."""

    def __init__(self, engine: Engine, stop: threading.Event) -> None:
        self._engine = engine
        self._stop = stop
        self._connection: psycopg.Connection | None = None
        self._lost = False

    def wait(self, seconds: float) -> bool:
        """Wait at most `seconds` for a notification; returns whether there may be changes.

        Returns True at once after connecting, because earlier notifications were missed.
        """
        try:
            if self._connection is None:
                self._connect()
                return True
            notified = any(self._connection.notifies(timeout=seconds, stop_after=1))
            if notified and not self._drained(self._connection):
                self.close()  # unread notifications would fill the queue of the whole server
            return notified
        except psycopg.Error as exc:
            self._lose(exc)
            self._stop.wait(min(seconds, RETRY_S))
            return False

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @staticmethod
    def _drained(connection: psycopg.Connection) -> bool:
        """Discard the other pending notifications; False if they do not end."""
        return any(not list(connection.notifies(timeout=DRAIN_S)) for _ in range(MAX_DRAINS))

    def _connect(self) -> None:
        parameters = KEEPALIVE | connection_parameters(self._engine) | SESSION
        self._connection = psycopg.connect(**parameters)
        notifications.listen(self._connection)
        if self._lost:
            _log.info("listening for changes again")
        self._lost = False

    def _lose(self, exc: psycopg.Error) -> None:
        """Close the connection; log the error once per loss, not once per attempt."""
        if not self._lost:
            _log.warning("change notifications are interrupted: %s", " ".join(str(exc).split()))
        self._lost = True
        self.close()
