"""Stopping a command that runs until told to: SIGTERM and SIGINT interrupt it once, promptly."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequested(KeyboardInterrupt):
    """Somebody asked this process to stop; what it was doing did not happen."""

    def __init__(self) -> None:
        super().__init__("stopped")


@contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """The first signal sets `stop` and ends the block where it stands; further ones are ignored.

    It is raised as Ctrl-C would be, so drivers cancel the statement that runs. For the main thread.
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
