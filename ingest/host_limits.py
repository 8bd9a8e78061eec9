"""Politeness: how often, and how many at a time, a host is asked for files."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from app.errors import BadImage
from app.images.download import TryLater

MAX_FAILURES = 8
"""Downloads in a row that a host may fail to answer; then it is not asked any more in this run."""

MAX_WAIT_S = 60.0
"""The longest that a host is waited for if it asks to (Retry-After); else its file is given up."""


class HostDown(BadImage):
    """The host is not asked any more in this run."""


@dataclass(frozen=True, slots=True)
class Politeness:
    """Downloads of one host: how many at the same time, and how many begin in a second."""

    at_once: int = 4
    per_second: float = 20.0


class Host:
    """When the next request to a host may begin. Safe to use from several threads."""

    def __init__(self, name: str, politeness: Politeness, stopping: threading.Event) -> None:
        self._name = name
        self._interval = 1.0 / politeness.per_second
        self._stopping = stopping
        self._lock = threading.Lock()
        self._next = 0.0
        self._failures = 0

    def wait_turn(self) -> None:
        """Wait until a request may begin. Raises HostDown if none may, or if the run ends."""
        with self._lock:
            if self._failures >= MAX_FAILURES:
                raise HostDown(
                    f"{self._name} did not answer {MAX_FAILURES} times in a row and is not asked "
                    "any more in this run; run the ingest again later."
                )
            begin = max(time.monotonic(), self._next)
            self._next = begin + self._interval
        if self._stopping.wait(max(0.0, begin - time.monotonic())):
            raise HostDown(f"The run ended before {self._name} was asked.")

    def answered(self) -> None:
        """Record that the host answered a request, with a file or with an error of that file."""
        with self._lock:
            self._failures = 0

    def failed(self, error: TryLater, pause_s: float) -> None:
        """Record that the host did not answer; the next request waits as it asks, or `pause_s`.

        Raises `error` if it asks to wait longer than MAX_WAIT_S.
        """
        with self._lock:
            self._failures += 1
            if error.after_s is not None and error.after_s > MAX_WAIT_S:
                self._failures = MAX_FAILURES
                raise error
            pause = pause_s if error.after_s is None else error.after_s
            self._next = max(self._next, time.monotonic() + pause)
