"""KeptConnections: connections to web servers that stay open between two downloads."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from httpcore2 import HTTPConnection, Origin, Response

from app.images.public_network import BoundedStream, PublicNetwork

IDLE_S = 4.0
"""Seconds for which a connection is kept unused; common servers close theirs after 5 or more."""

MAX_IDLE = 32
"""Connections of all hosts together that are kept unused."""


@dataclass(frozen=True, slots=True)
class _Kept:
    origin: Origin
    connection: HTTPConnection
    stream: BoundedStream
    since: float


class KeptConnections:
    """Idle connections, for the next download from the same server. Thread-safe.

    A connection was opened to an address that was checked then, and stays connected to it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Kept] = []
        self._closed = False

    def take(self, origin: Origin, network: PublicNetwork) -> HTTPConnection | None:
        """A connection to this origin, under the limits of a network; None if there is none."""
        with self._lock:
            usable, unusable = _split(self._idle, time.monotonic() - IDLE_S)
            kept = next((each for each in reversed(usable) if each.origin == origin), None)
            self._idle = [each for each in usable if each is not kept]
        _close(unusable)
        if kept is None:
            return None
        kept.stream.renew(network)
        return kept.connection

    def give(self, origin: Origin, connection: HTTPConnection, response: Response) -> None:
        """Keep the connection of a response that was read; close one that ended with it."""
        stream = response.extensions.get("network_stream")
        if not connection.is_available() or not isinstance(stream, BoundedStream):
            connection.close()
            return
        kept = _Kept(origin, connection, stream, time.monotonic())
        with self._lock:
            dropped = (
                [kept] if self._closed else self._idle[: max(0, len(self._idle) + 1 - MAX_IDLE)]
            )
            if not self._closed:
                self._idle = [*self._idle[len(dropped) :], kept]
        _close(dropped)

    def close(self) -> None:
        """Close all, and those that are given from now on."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        _close(idle)


def _split(idle: list[_Kept], oldest: float) -> tuple[list[_Kept], list[_Kept]]:
    """The connections that may be used again, and those that are too old or were closed."""
    usable = [each for each in idle if each.since >= oldest and not each.connection.has_expired()]
    kept = {id(each) for each in usable}
    return usable, [each for each in idle if id(each) not in kept]


def _close(connections: list[_Kept]) -> None:
    for each in connections:
        each.connection.close()
