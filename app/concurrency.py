"""Threads and forks: background loops, queues that are written in the background, warnings that
are not repeated, resets after a fork."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")

CLOSE_TIMEOUT_S = 1.0
"""Seconds that `BackgroundLoop.close` waits for a call that is running."""


class RepeatedWarning:
    """Logs a warning once, however many times in a row it is given."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._last = ""

    def warn(self, message: str) -> None:
        """Log a message unless it is the last one again; an empty one ends the row."""
        if message and message != self._last:
            self._log.warning("%s", message)
        self._last = message

    def clear(self) -> None:
        """The next warning is logged, also when it is the last one again."""
        self._last = ""


class BackgroundLoop:
    """Calls a function in a thread of its own, every `interval_s` seconds until it is closed.

    `function` returns a warning, or an empty text; both it and the text of the errors in `expected`
    (after `failure` and a colon) are logged once in a row. Other errors are logged with their
    traceback. No error ends the loop. As a context manager it starts and closes itself.
    """

    def __init__(
        self,
        function: Callable[[], str],
        interval_s: float,
        *,
        name: str,
        log: logging.Logger,
        failure: str,
        expected: tuple[type[Exception], ...],
    ) -> None:
        self._function = function
        self._interval_s = interval_s
        self._name = name
        self._log = log
        self._failure = failure
        self._expected = expected
        self._warning = RepeatedWarning(log)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Call the function no more; a running call is waited for at most `CLOSE_TIMEOUT_S`."""
        self._stop.set()
        self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._warning.warn(self._function())
            except self._expected as exc:
                self._warning.warn(f"{self._failure}: {' '.join(str(exc).split())}")
            except Exception:
                self._log.exception("the %s failed and will try again", self._name)
            self._stop.wait(self._interval_s)


class BackgroundQueue(Generic[T]):
    """Passes what was put into it to `write`, all that waits together, once per `interval_s`.

    `write` is called in a thread of its own, which the first item starts, and never twice at a
    time. Of more than `most` waiting items the newest are kept. Thread-safe.
    """

    def __init__(
        self, write: Callable[[list[T]], None], *, most: int, interval_s: float, name: str
    ) -> None:
        self._write = write
        self._interval_s = interval_s
        self._name = name
        self._items: deque[T] = deque(maxlen=most)
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def put(self, item: T) -> None:
        """Queue an item; never blocks."""
        self._items.append(item)
        with self._lock:
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop the thread and write what is queued."""
        self._closing.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()
        self.flush()

    def flush(self) -> None:
        """Write what is queued now."""
        with self._writing:
            items = [self._items.popleft() for _ in range(len(self._items))]
            if items:
                self._write(items)

    def _run(self) -> None:
        while not self._closing.wait(self._interval_s):
            self.flush()


def after_fork_in_child(method: Callable[[], Any]) -> None:
    """Call a bound method in every child that is forked from now on, while its object lives.

    For locks and threads: a child has none of its parent's threads, so a lock that one of them
    held would never be released. The object is not kept alive by it.
    """
    reference = weakref.WeakMethod(method)

    def call() -> None:
        living = reference()
        if living is not None:
            living()

    os.register_at_fork(after_in_child=call)
