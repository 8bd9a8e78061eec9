"""Every benchmark in turn, each a process of its own, and the tables they make.

    python -m bench.harness.run_all --rows 100000 --rows 1000000
    python -m bench.harness.run_all --photos ../photos

A folder of photos has `catalogue.csv` and `queries.csv`. Catalogues of drawn vectors are made once
and shared; a million takes about ten minutes and ten gigabytes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
GROWTH = 10_000
"""A size that is measured too, so that the costs of the others have a slope."""


def commands(rows: list[int], photos: list[Path]) -> Iterator[list[str]]:
    """Scripts with their arguments, the quick ones first."""
    folders = [str(folder) for folder in photos]
    yield ["startup.py"]
    yield ["flat.py"]
    yield ["towers.py", *folders]
    yield ["preprocessing.py", *folders]
    for tower in ("fp32", "int8"):
        yield ["ingesting.py", "--tower", tower]
    for folder in photos:
        source = ["--catalogue", str(folder / "catalogue.csv")]
        for tower in ("fp32", "int8"):
            yield ["ingesting.py", "--tower", tower, "--rounds", "2", *source]
        yield ["latency.py", *source, "--queries", str(folder / "queries.csv")]
    for script in ("ingest_memory.py", "writes.py", "users.py", "drop.py"):
        yield [script]
    for size in rows:
        for script in ("latency.py", "build.py", "search_alone.py"):
            yield [script, "--rows", str(size)]
    sizes = [word for size in sorted({GROWTH, *rows}) for word in ("--rows", str(size))]
    yield ["growth.py", *sizes, "--plot", str(HERE.parent / "docs" / "images" / "growth.png")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, action="append")
    parser.add_argument("--photos", type=Path, action="append", default=[])
    words = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory(prefix="lookalike-bench-") as kept:
        own = {"LOOKALIKE_BENCH_KEEP": kept, "PYTHONPATH": str(HERE.parent)}
        for command in commands(words.rows or [100_000], words.photos):
            print("\n" + " ".join(command), flush=True)
            began = time.monotonic()
            done = subprocess.run(
                [sys.executable, str(HERE / command[0]), *command[1:]], env=own | os.environ
            )
            if done.returncode:
                failed.append(" ".join(command))
            print(f"{time.monotonic() - began:.0f} s", flush=True)
    subprocess.run([sys.executable, str(HERE / "pages.py")], check=True)
    for command in failed:
        print(f"FAILED: {command}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
