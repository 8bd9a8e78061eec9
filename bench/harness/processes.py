"""Whole processes: how long one takes and the most memory it holds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ran:
    """A process that ended well: its seconds, its peak memory in MB, and what it printed."""

    seconds: float
    peak_mb: float
    printed: str


def lookalike(*words: str, **environment: str) -> Ran:
    """`lookalike WORDS` in a process of its own."""
    return run([sys.executable, "-c", "from app.cli import main; main()", *words], **environment)


def run(command: Sequence[str], **environment: str) -> Ran:
    """A command run to its end. Raises RuntimeError when it fails."""
    path = os.pathsep.join([str(REPO), os.environ.get("PYTHONPATH", "")])
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path} | environment,
    )
    assert process.stdout is not None
    with process.stdout as said:
        printed = said.read()
    # wait4 tells of this child alone; the kernel counts its peak in KiB.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {printed[-500:]}")
    return Ran(time.perf_counter() - began, usage.ru_maxrss * 1024 / 1e6, printed)
