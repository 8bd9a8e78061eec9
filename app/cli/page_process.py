"""The process of `lookalike page`: serves the pages, their metrics and health from its start on,
and answers `lookalike search`."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

from app.cli.search_listener import SearchListener
from app.ui import server
from app.ui.shared import prepare


class Terminated(BaseException):
    """SIGTERM has come."""


def main() -> None:
    """Serve until a signal ends this process, which removes its socket first."""
    # uvicorn sends itself the signal again when it has stopped, which would end it at once.
    signal.signal(signal.SIGTERM, _unwind)
    try:
        with SearchListener(prepare()):
            server.run()
    except Terminated:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


def _unwind(number: int, frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would interrupt the clean-up
    raise Terminated


if __name__ == "__main__":
    main()
