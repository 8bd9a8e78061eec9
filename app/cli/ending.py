"""How the process of a command ends."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from typing import NoReturn


class AtOnce:
    """What a command returns whose process may end without taking the interpreter down.

    For a server that has closed what it had open. Taking interpreter and libraries down is half a
    second of processor time, in which the server that follows it on the same port has to wait.
    """


def end(result: object) -> NoReturn:
    """End this process with the exit code that a command returned, or 0; what is registered for
    its end is done, and what was printed is written."""
    if not isinstance(result, AtOnce):
        sys.exit(result if isinstance(result, int) else 0)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(0)
