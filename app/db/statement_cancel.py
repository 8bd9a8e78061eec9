"""StatementCancel: ends the statements that a thread waits for, from another thread."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg
from sqlalchemy import Engine, event

CANCEL_S = 2.0
"""Seconds to wait for the server to take a request to cancel."""


@dataclass(slots=True)
class _Taken:
    """A connection that a thread has taken from a pool."""

    thread: int
    connection: psycopg.Connection
    lock: threading.Lock = field(default_factory=threading.Lock)
    returned: bool = False


class StatementCancel:
    """Knows which thread has which connections of some engines, from its creation on."""

    def __init__(self, *engines: Engine) -> None:
        self._taken: dict[object, _Taken] = {}
        for engine in engines:
            event.listen(engine, "checkout", self._take)
            event.listen(engine, "checkin", self._return)

    def cancel(self, thread: int) -> None:
        """Cancel the statements that run on the connections of a thread (`threading.get_ident`).

        A connection goes back to its pool before that or after it, so that no statement of another
        thread is cancelled. A server that cannot be reached is ignored.
        """
        for taken in list(self._taken.values()):
            if taken.thread != thread:
                continue
            with taken.lock:
                if not taken.returned:
                    with suppress(psycopg.Error):
                        taken.connection.cancel_safe(timeout=CANCEL_S)

    def _take(self, connection: psycopg.Connection, record: object, _proxy: object) -> None:
        self._taken[record] = _Taken(threading.get_ident(), connection)

    def _return(self, _connection: object, record: object) -> None:
        if (taken := self._taken.pop(record, None)) is not None:
            with taken.lock:
                taken.returned = True
