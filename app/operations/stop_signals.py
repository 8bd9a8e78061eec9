"""Stops a long-running command: the first SIGTERM or SIGINT interrupts it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequested(KeyboardInterrupt):
    """This process was asked to stop; the operation in progress did not happen."""

    def __init__(self) -> None:
        super().__init__("stopped")


@contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """The first signal sets `stop` and ends the block at once; later signals are ignored.

    It is raised as a KeyboardInterrupt, so that drivers cancel the running statement. Main thread
    only.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not stop.is_set():
            stop.set()
            raise StopRequested()

    former = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield
    except StopRequested:
        return
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
