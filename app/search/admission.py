"""Admission: limits the number of concurrent searches; the others wait, with a timeout."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.concurrency import after_fork_in_child
from app.errors import Busy


class Admission:
    """A semaphore of `places`, granted in order of arrival. Thread-safe and reentrant.

    A caller that waits longer than `wait_s` seconds is refused, and `refused` is called. A thread
    that holds a place does not need a second one.
    """

    def __init__(
        self, places: int, wait_s: float, refused: Callable[[], None] | None = None
    ) -> None:
        self.places = places
        self._wait_s = wait_s
        self._refused = refused
        self._told: Callable[[int, int], None] = lambda running, waiting: None
        self._reset()
        after_fork_in_child(self._reset)

    def on_change(self, told: Callable[[int, int], None]) -> None:
        """Call `told` with the numbers of places in use and of callers that wait whenever one of
        them changes."""
        self._told = told

    def _reset(self) -> None:
        """Free all places: initially, and in a forked child, where no caller holds one."""
        self._lock = threading.Lock()
        self._free = self.places
        self._waiting: deque[threading.Event] = deque()
        self._thread = threading.local()

    @property
    def waiting(self) -> int:
        """Number of callers that wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Number of places in use."""
        return self.places - self._free

    @contextmanager
    def admitted(self) -> Iterator[float]:
        """Hold a place in the block; yields the seconds waited for it. Raises Busy."""
        if getattr(self._thread, "admitted", False):
            yield 0.0
            return
        waited_s = self._wait()
        self._thread.admitted = True
        try:
            yield waited_s
        finally:
            self._thread.admitted = False
            self._release()

    @contextmanager
    def not_waiting(self) -> Iterator[None]:
        """Refuse this thread a place in the block, with Busy, rather than have it wait for one;
        that is not counted as refused."""
        self._thread.in_haste = True
        try:
            yield
        finally:
            self._thread.in_haste = False

    def _wait(self) -> float:
        granted = self._take_place_or_queue()
        if granted is None:
            return 0.0
        began = time.monotonic()
        try:
            granted.wait(self._wait_s)
        except BaseException:  # such as Ctrl-C: a place already granted must be given back
            if not self._withdraw(granted):
                self._release()
            raise
        waited_s = time.monotonic() - began
        if self._withdraw(granted):
            self._refuse()
        return waited_s

    def _take_place_or_queue(self) -> threading.Event | None:
        """Take a free place and return None, or queue and return the event that grants one."""
        with self._lock:
            if self._free:
                self._free -= 1
                self._told(self.running, self.waiting)
                return None
            if getattr(self._thread, "in_haste", False):
                raise Busy()
            granted = threading.Event()
            self._waiting.append(granted)
            self._told(self.running, self.waiting)
            return granted

    def _withdraw(self, granted: threading.Event) -> bool:
        """Leave the queue; False if the place was granted meanwhile."""
        with self._lock:
            if granted.is_set():
                return False
            self._waiting.remove(granted)
            self._told(self.running, self.waiting)
            return True

    def _release(self) -> None:
        """Pass the place to the caller that has waited longest, or free it."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1
            self._told(self.running, self.waiting)

    def _refuse(self) -> None:
        if self._refused:
            self._refused()
        raise Busy(
            f"Too many searches at a time: {self.places} are running, and this one waited "
            f"{self._wait_s:g} s for its turn and was not begun. Try again in a moment."
        )
