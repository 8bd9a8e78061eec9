"""Number of cores that one thread uses for encoding, where several threads encode at once.

Only torch needs this: it spreads every operation over all cores and waits for the slowest one.
"""

from __future__ import annotations

import os
import sys


def thread_count() -> int:
    """The number of cores that the calling thread encodes on."""
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None else _usable_cores()


def _usable_cores() -> int:
    limit = os.environ.get("OMP_NUM_THREADS", "")  # torch keeps to it too
    if limit.isdecimal() and int(limit):
        return int(limit)
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def set_thread_count(count: int) -> None:
    """Limit the calling thread, and threads that have not encoded yet, to this many cores."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(count)
