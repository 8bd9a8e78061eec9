"""Runs every benchmark in its own process, one after the other, and prints the result tables.

    python -m bench.harness.run_all --rows 100000 --rows 1000000
    python -m bench.harness.run_all --photos ../photos

A folder of photos holds `catalogue.csv` and `queries.csv`. Catalogues of generated vectors are
created once and shared; one million products take about ten minutes and ten gigabytes.
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
GROWTH_ROWS = 10_000
"""A smaller size that is always measured for growth, to estimate the slope of the costs."""


def commands(rows: list[int], photos: list[Path]) -> Iterator[list[str]]:
    """The benchmark modules with their arguments, the quick ones first."""
    folders = [str(folder) for folder in photos]
    yield ["bench.operations.startup"]
    yield ["bench.index.flat_vs_ivf"]
    yield ["bench.encoders.openvino", *folders]
    yield ["bench.encoders.versions"]
    yield ["bench.ingest.preprocessing", *folders]
    for precision in ("fp32", "int8"):
        yield ["bench.ingest.throughput", "--tower", precision]
    for folder in photos:
        source = ["--catalogue", str(folder / "catalogue.csv")]
        for precision in ("fp32", "int8"):
            yield ["bench.ingest.throughput", "--tower", precision, "--rounds", "2", *source]
        yield ["bench.search.latency", *source, "--queries", str(folder / "queries.csv")]
    for module in (
        "bench.ingest.memory",
        "bench.ingest.writes",
        "bench.search.users",
        "bench.operations.model_removal",
    ):
        yield [module]
    for size in rows:
        for module in (
            "bench.search.latency",
            "bench.search.query_kinds",
            "bench.index.build",
            "bench.search.ann_comparison",
        ):
            yield [module, "--rows", str(size)]
    sizes = [part for size in sorted({GROWTH_ROWS, *rows}) for part in ("--rows", str(size))]
    yield ["bench.index.growth", *sizes, "--plot", str(REPO / "docs" / "images" / "growth.png")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rows", type=int, action="append", help="catalogue size (repeatable; default 100000)"
    )
    parser.add_argument(
        "--photos", type=Path, action="append", default=[], help="folder of photos (repeatable)"
    )
    options = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory(prefix="lookalike-bench-") as shared_folder:
        environment = {"LOOKALIKE_BENCH_KEEP": shared_folder, "PYTHONPATH": str(REPO)}
        for command in commands(options.rows or [100_000], options.photos):
            print("\n" + " ".join(command), flush=True)
            began = time.monotonic()
            process = subprocess.run(
                [sys.executable, "-m", *command], cwd=REPO, env=environment | os.environ
            )
            if process.returncode:
                failed.append(" ".join(command))
            print(f"{time.monotonic() - began:.0f} s", flush=True)
    subprocess.run([sys.executable, "-m", "bench.harness.markdown_tables"], cwd=REPO, check=True)
    for command in failed:
        print(f"FAILED: {command}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
