"""Several server processes that share one port, each with its own interpreter and index.

Each of them listens on the port by itself (SO_REUSEPORT), and Linux spreads new connections over
them. This process starts them, starts one again that ended, and ends them all.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Protocol

from app.api import addresses
from app.errors import LookalikeError
from app.operations.metrics import SHARED_FOLDER, forget_process

SHARING = "--sharing"
"""Option of `lookalike api` for one of several processes."""

LISTENING = b"listening\n"
"""What such a process writes to its standard output once clients may connect."""

RESTART_S = 1.0
"""Pause before a process that ended is started again."""

POLL_S = 0.1

CLOSING_S = addresses.CLOSING_S + 5
"""Seconds in which a process has to end when it is asked to."""

_log = logging.getLogger("lookalike.api")


class ApiProcesses:
    """`count` processes that serve the API on one address; `run` answers until Ctrl-C.

    Port 0 is any free port. Raises LookalikeError if the address cannot be listened on, or the
    system does not spread connections.
    """

    def __init__(self, host: str, port: int, count: int) -> None:
        if sys.platform != "linux":
            raise LookalikeError("Several processes can share a port on Linux only.")
        self._host, self._count = host, count
        try:
            # Alone first: others that share their port would let this one join them.
            with addresses.bound(host, port) as alone:
                self._port = int(alone.getsockname()[1])
            self._reserved = addresses.bound(host, self._port, shared=True)
        except (OSError, OverflowError) as exc:
            raise addresses.refused(host, port) from exc
        self.address = addresses.url_of(host, self._port)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._metrics_folder = ""

    def __enter__(self) -> ApiProcesses:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._reserved.close()

    def run(self, ready: Callable[[], None]) -> None:
        """Answer requests until KeyboardInterrupt; `ready` is called when all processes listen.
        Raises LookalikeError if one of them ends before that."""
        with tempfile.TemporaryDirectory(prefix="lookalike-metrics-") as self._metrics_folder:
            try:
                self._processes += [self._started() for _ in range(self._count)]
                for process in self._processes:
                    assert process.stdout is not None
                    if process.stdout.readline() != LISTENING:
                        raise LookalikeError("A process of the API ended while it started.")
                ready()
                while True:
                    self._restart_ended()
                    time.sleep(POLL_S)
            finally:
                self._end()

    def _started(self) -> subprocess.Popen[bytes]:
        """A new process. It ends when its standard input does, also if this process is killed."""
        command = ["api", "--host", self._host, "--port", str(self._port), SHARING]
        return subprocess.Popen(
            [sys.executable, "-P", "-c", "from app.cli import main; main()", *command],
            env=os.environ | {SHARED_FOLDER: self._metrics_folder},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is for this process, which ends them in turn
        )  # fmt: skip

    def _restart_ended(self) -> None:
        for place, process in enumerate(self._processes):
            if process.poll() is None:
                continue
            _log.warning("a process of the API ended with %s; it is started again", process.poll())
            _close(process)
            forget_process(process.pid, self._metrics_folder)
            time.sleep(RESTART_S)
            self._processes[place] = self._started()

    def _end(self) -> None:
        """End all processes: requests in progress are answered."""
        for process in self._processes:
            assert process.stdin is not None
            with suppress(OSError):
                process.stdin.close()
        until = time.monotonic() + CLOSING_S
        try:
            for process in self._processes:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, until - time.monotonic()))
        finally:
            for process in self._processes:
                process.kill()
                process.wait()
                _close(process)


class Stoppable(Protocol):
    """A server, as `ApiServer`."""

    def stop(self) -> None:
        """End it from another thread."""


def stop_with_parent(server: Stoppable) -> None:
    """End a server when the standard input of this process ends: the process that started it asks
    for that, or is gone."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        server.stop()

    threading.Thread(target=wait, name="parent", daemon=True).start()


def tell_listening() -> None:
    """Tell the process that started this one that clients may connect."""
    sys.stdout.buffer.write(LISTENING)
    sys.stdout.buffer.flush()


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
