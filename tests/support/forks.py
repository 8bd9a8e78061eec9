"""Child processes that are forked, not started: they have imported everything already.

For tests that kill a process in the middle of its work. Tests of a start use `subprocess`.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TextIO

HANGS_S = 900
"""Seconds after which a child is ended by SIGALRM, so that one that hangs ends its test."""


@dataclass
class Fork:
    """A child process; `output` is what its function writes."""

    pid: int
    output: TextIO
    returncode: int | None = field(default=None)

    def kill(self) -> None:
        """Kill it, unless it has ended, and wait for its end."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        """The exit code, negative for a signal, as in `subprocess`."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            self.output.close()
        return self.returncode


def fork(function: Callable[[Callable[[str], None]], object]) -> Fork:
    """Run a function in a child process; its argument writes a line to the parent.

    It must open connections and services of its own. The exit code is 1 after an exception.
    """
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there may be idle threads
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(read)
            signal.alarm(HANGS_S)
            _compute_alone()
            function(lambda line: (os.write(write, f"{line}\n".encode()), None)[1])
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(write)
    return Fork(pid, os.fdopen(read, encoding="utf-8"))


def _compute_alone() -> None:
    """Use no pool of OpenMP: the threads of the parent's do not exist here, and are waited for."""
    if (faiss := sys.modules.get("faiss")) is not None:
        faiss.omp_set_num_threads(1)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
