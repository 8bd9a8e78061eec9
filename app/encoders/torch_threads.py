"""How many cores a thread takes for encoding, where several encode at once.

It matters to torch only, which spreads every operation over all cores and waits for the slowest.
"""

from __future__ import annotations

import os
import sys


def cores() -> int:
    """The cores that the calling thread encodes on."""
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None else os.cpu_count() or 1


def use_cores(count: int) -> None:
    """Let the calling thread, and those that have not encoded yet, encode on so many cores."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(count)
