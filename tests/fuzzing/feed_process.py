"""A process that reads the catalogues named on its input, one a line, and says whether it did.

A library that crashes on a file ends this process, not the tests; its memory is limited.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
from pathlib import Path

from app.errors import BadSource
from ingest.feeds.formats import read_source
from support.paths import REPO

SMALL_RESERVES = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"}
"""Arrow's own allocator, and the C library's for each thread, reserve address space that nothing
uses; the limit would count it."""


class FeedProcess:
    """Reads files in a process that may take `memory_bytes` beyond what it begins with."""

    def __init__(self, memory_bytes: int, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._child = subprocess.Popen(
            [sys.executable, "-m", "fuzzing.feed_process", str(memory_bytes)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPO,
            env={"PYTHONPATH": f"{REPO}:{REPO / 'tests'}"} | SMALL_RESERVES,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._child.pid

    def read(self, path: Path) -> str:
        """Whether the file was read or refused, and how many rows it has or why. Raises
        AssertionError if the process died or took too long."""
        assert self._child.stdin is not None and self._child.stdout is not None
        print(path, file=self._child.stdin, flush=True)
        timer = threading.Timer(self._timeout_s, self._child.kill)
        timer.start()
        try:
            answer = self._child.stdout.readline().rstrip("\n")
        finally:
            timer.cancel()
        assert answer, f"the process that reads died or took too long ({self._child.wait()})"
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.close()
        self._child.stdout.close()
        self._child.wait()


def main() -> None:
    import pyarrow
    import pyarrow.parquet

    limit = _address_space() + int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for line in sys.stdin:
        try:
            rows = sum(1 for _ in read_source(Path(line.rstrip("\n"))))
            print("read", rows, flush=True)
        except BadSource as exc:
            print("refused", " ".join(str(exc).split()), flush=True)
        pyarrow.default_memory_pool().release_unused()  # the limit is for one file


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main()
