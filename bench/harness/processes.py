"""Runs a command as a child process; measures its duration and peak memory."""

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
class ProcessResult:
    """A process that exited with 0: duration in seconds, peak memory in MB, standard output, and
    its processor time in seconds, without that of servers."""

    seconds: float
    peak_mb: float
    output: str
    processor_s: float = 0.0


def run_lookalike(*arguments: str, **environment: str) -> ProcessResult:
    """Run `lookalike ARGUMENTS` as a child process."""
    return run(
        [sys.executable, "-c", "from app.cli import main; main()", *arguments], **environment
    )


def run(command: Sequence[str], **environment: str) -> ProcessResult:
    """Run a command to its end. Raises RuntimeError if it fails."""
    path = os.pathsep.join([str(REPO), os.environ.get("PYTHONPATH", "")])
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path} | environment,
    )
    assert process.stdout is not None
    with process.stdout as pipe:
        output = pipe.read()
    # wait4 reports this child only; the kernel counts its peak memory in KiB.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {output[-500:]}")
    return ProcessResult(
        time.perf_counter() - began,
        usage.ru_maxrss * 1024 / 1e6,
        output,
        usage.ru_utime + usage.ru_stime,
    )


def postgres_cpu_s(home: Path) -> float:
    """CPU seconds used by the embedded server of a home so far, with processes that have ended."""
    postmaster = int((home / "postgres" / "postmaster.pid").read_text().split()[0])
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # the process has ended
        if int(stat.parent.name) == postmaster:
            ticks += sum(map(int, fields[11:15]))
        elif int(fields[1]) == postmaster:
            ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")
