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

REPO = Path(__file__).resolve().parents[2]
GROWTH = 10_000
"""A size that is measured too, so that the costs of the others have a slope."""


def commands(rows: list[int], photos: list[Path]) -> Iterator[list[str]]:
    """Modules with their arguments, the quick ones first."""
    folders = [str(folder) for folder in photos]
    yield ["bench.operations.startup"]
    yield ["bench.index.flat_vs_ivf"]
    yield ["bench.encoders.openvino", *folders]
    yield ["bench.ingest.preprocessing", *folders]
    for tower in ("fp32", "int8"):
        yield ["bench.ingest.throughput", "--tower", tower]
    for folder in photos:
        source = ["--catalogue", str(folder / "catalogue.csv")]
        for tower in ("fp32", "int8"):
            yield ["bench.ingest.throughput", "--tower", tower, "--rounds", "2", *source]
        yield ["bench.search.latency", *source, "--queries", str(folder / "queries.csv")]
    for module in (
        "bench.ingest.memory",
        "bench.ingest.writes",
        "bench.search.users",
        "bench.operations.model_removal",
    ):
        yield [module]
    for size in rows:
        for module in ("bench.search.latency", "bench.index.build", "bench.search.ann_comparison"):
            yield [module, "--rows", str(size)]
    sizes = [word for size in sorted({GROWTH, *rows}) for word in ("--rows", str(size))]
    yield ["bench.index.growth", *sizes, "--plot", str(REPO / "docs" / "images" / "growth.png")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, action="append")
    parser.add_argument("--photos", type=Path, action="append", default=[])
    words = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory(prefix="lookalike-bench-") as kept:
        own = {"LOOKALIKE_BENCH_KEEP": kept, "PYTHONPATH": str(REPO)}
        for command in commands(words.rows or [100_000], words.photos):
            print("\n" + " ".join(command), flush=True)
            began = time.monotonic()
            done = subprocess.run([sys.executable, "-m", *command], cwd=REPO, env=own | os.environ)
            if done.returncode:
                failed.append(" ".join(command))
            print(f"{time.monotonic() - began:.0f} s", flush=True)
    subprocess.run([sys.executable, "-m", "bench.harness.markdown_tables"], cwd=REPO, check=True)
    for command in failed:
        print(f"FAILED: {command}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
