"""Admission: how many searches run at a time; the others wait their turn, and not for ever."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.concurrency import after_fork_in_child
from app.errors import Busy


class Admission:
    """Places for so many callers at a time, given in the order of arrival.

    Who waits longer than `wait_s` seconds is refused, and `refused` is called. A thread that has a
    place needs no second one for what it does meanwhile. Safe to use from several threads.
    """

    def __init__(
        self, places: int, wait_s: float, refused: Callable[[], None] | None = None
    ) -> None:
        self.places = places
        self._wait_s = wait_s
        self._refused = refused
        self._begin()
        after_fork_in_child(self._begin)

    def _begin(self) -> None:
        """All places are free: so at first, and in a child that was forked."""
        self._lock = threading.Lock()
        self._free = self.places
        self._waiting: deque[threading.Event] = deque()
        self._here = threading.local()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many have a place."""
        return self.places - self._free

    @contextmanager
    def admitted(self) -> Iterator[float]:
        """Have a place inside; gives the seconds that were waited for it. Raises Busy."""
        if getattr(self._here, "admitted", False):
            yield 0.0
            return
        waited_s = self._wait()
        self._here.admitted = True
        try:
            yield waited_s
        finally:
            self._here.admitted = False
            self._release()

    def _wait(self) -> float:
        turn = self._turn()
        if turn is None:
            return 0.0
        began = time.monotonic()
        try:
            turn.wait(self._wait_s)
        except BaseException:  # Ctrl-C, for one: the place must not be lost with whoever had it
            if not self._withdraw(turn):
                self._release()
            raise
        waited_s = time.monotonic() - began
        if self._withdraw(turn):
            self._refuse()
        return waited_s

    def _turn(self) -> threading.Event | None:
        """A turn to wait for, or None where a place is free."""
        with self._lock:
            if self._free:
                self._free -= 1
                return None
            turn = threading.Event()
            self._waiting.append(turn)
            return turn

    def _withdraw(self, turn: threading.Event) -> bool:
        """Wait no longer; False if the place has been given already."""
        with self._lock:
            if turn.is_set():
                return False
            self._waiting.remove(turn)
            return True

    def _release(self) -> None:
        """Hand the place to whoever has waited longest."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1

    def _refuse(self) -> None:
        if self._refused:
            self._refused()
        raise Busy(
            f"Too many searches at a time: {self.places} are running, and this one waited "
            f"{self._wait_s:g} s for its turn and was not begun. Try again in a moment."
        )
