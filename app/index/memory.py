"""Returns freed memory to the operating system."""

from __future__ import annotations

import ctypes
import threading


def give_back() -> None:
    """Return what was freed in this process, in a thread.

    The C library keeps freed memory for later: after an index was given up, all of it. Only glibc
    has the call; elsewhere nothing happens.
    """
    threading.Thread(target=_trim, name="give-back-memory", daemon=True).start()


def _trim() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
