"""Index build: duration from table to published build, memory, and recall.

    python -m bench.index.build --rows 100000

Reading is compared with psql's COPY to /dev/null; training and adding with plain FAISS and its
defaults on the same vectors in memory. Each part runs in its own process, without OPENBLAS_*
environment variables, as on most machines.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from app.bootstrap import App
from app.config import Settings
from app.db.dsn import for_psql
from app.db.embedded import binaries
from app.db.engine import database_url
from app.index.embedding_reader import open_embeddings
from bench.data.catalogue import catalogue
from bench.harness.build_parts import GOAL
from bench.harness.side_by_side import BenchmarkReport, Measurement, measure_alternately, ratio

KMEANS_ROUNDS = 10
"""K-means iterations of FAISS for inverted lists by default."""

FULL_FAISS_ROWS, SUBSAMPLE = 200_000, 10
"""Above this number of rows plain FAISS gets one row in ten and few iterations; its time for all
rows is then extrapolated."""


def run_part(*arguments: object) -> dict[str, Any]:
    """The figures of one part, measured in its own process."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
    command = [sys.executable, "-m", "bench.harness.build_parts", *map(str, arguments)]
    process = subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    figures: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return figures


def measure_read(report: BenchmarkReport, app: App, rows: int, rounds: int) -> None:
    """Reading and validating all embeddings for a build, compared with psql's COPY of the table."""
    model = app.catalog.model()
    psql = [str(binaries.binary("psql")), "-qAt", for_psql(database_url(app.settings)), "-c"]
    copy = f"COPY embedding_m{model.id} (picture_id, vec) TO STDOUT (FORMAT BINARY)"
    times = measure_alternately(
        {
            "psql COPY to /dev/null": lambda: _discard_output([*psql, copy]),
            "read for a build": lambda: _read_once(app),
        },
        rounds,
    )
    for name, seconds in times.items():
        report.row(read=name, seconds=seconds, rows_per_second=rows / seconds.p50)
    psql_s, build_s = times.values()
    report.goal("read rate relative to psql", ratio(psql_s, build_s), 0.9)


def _discard_output(command: list[str]) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def _read_once(app: App) -> None:
    """One of the passes of a build."""
    with open_embeddings(app.engine, app.catalog.model()) as stored:
        for _ in stored.blocks():
            pass


def measure_plain_faiss(report: BenchmarkReport, rows: int) -> float:
    """Seconds that plain FAISS takes to train and add."""
    if rows <= FULL_FAISS_ROWS:
        seconds = run_part("faiss", rows, 0, 1)
    else:
        one, three = run_part("faiss", rows, 1, SUBSAMPLE), run_part("faiss", rows, 3, SUBSAMPLE)
        per_round = SUBSAMPLE * (three["train"] - one["train"]) / 2
        seconds = {"train": KMEANS_ROUNDS * per_round, "add": SUBSAMPLE * one["add"]}
        report.note(
            f"Plain FAISS is extrapolated: a tenth of the rows was added in {one['add']:.1f} s; "
            f"training on them took {one['train']:.1f} s with one k-means iteration and "
            f"{three['train']:.1f} s with three. Time grows linearly with iterations and rows."
        )
    report.row(plain_faiss="train", seconds=seconds["train"])
    report.row(plain_faiss="add", seconds=seconds["add"])
    return float(seconds["train"] + seconds["add"])


def measure_build(
    report: BenchmarkReport, figures: dict[str, Any], plain_faiss_s: float | None
) -> None:
    """The stages of a build, and its goals."""
    stages = figures["stages"]
    for name, seconds in stages.items():
        report.row(stage=name, seconds=float(seconds))
    report.row(stage="table to published build", seconds=float(figures["seconds"]))
    report.row(stage="open and hash the file", seconds=float(figures["open"]))
    report.row(
        kind=figures["kind"], parameters=json.dumps(figures["parameters"]),
        bytes_per_row=figures["bytes per row"],
    )  # fmt: skip
    # A flat index, of up to 5,000 rows, is not trained.
    train_and_add = stages.get("train", 0.0) + stages.get("add", 0.0)
    if plain_faiss_s is not None:
        report.goal(
            "train and add, relative to plain FAISS",
            train_and_add / plain_faiss_s, 0.6, at_least=False,
        )  # fmt: skip
        quality = sum(stages[stage] for stage in ("exact answers", "tune", "filtered recall"))
        report.goal(
            "train, add and recall measurement, relative to plain FAISS",
            (train_and_add + quality) / plain_faiss_s, 0.6, at_least=False,
        )  # fmt: skip
    report.goal(
        "peak memory beyond the index, MB", figures["beyond index"] / 1e6, 1000, at_least=False
    )  # fmt: skip
    report.goal("recall@10", figures["recall"][0], GOAL)
    report.goal("recall@10 with filters", figures["recall"][2], GOAL)
    report.goal("p50 of an index search, ms", figures["p50_ms"], 1.0, at_least=False)


def measure_other_vectors(report: BenchmarkReport, rows: int) -> None:
    """Index parameters, recall and latency for distributions that are harder."""
    for name, figures in run_part("kinds", rows).items():
        report.row(
            vectors=name, recall_at_10=figures["recall"][0], recall_at_50=figures["recall"][1],
            p50_ms=Measurement((figures["p50_ms"],), "ms"),
            nprobe=json.dumps(figures["parameters"]),
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the read")
    parser.add_argument(
        "--home", type=Path, help="home folder of an existing catalogue with --rows"
    )
    parser.add_argument(
        "--parts", nargs="+", default=["read", "faiss", "build", "kinds"], help="parts to measure"
    )
    options = parser.parse_args()
    title = f"Index build, {options.rows:,} pictures, 512 dimensions"
    report = BenchmarkReport(f"build_{options.rows}", title)
    existing = options.home and App(
        Settings(home=options.home, model="embedded", sample_queries=False)
    )
    with existing if existing else catalogue(options.rows, pgvector=True) as app:
        if "read" in options.parts:
            measure_read(report, app, options.rows, options.rounds)
        plain_faiss_s = (
            measure_plain_faiss(report, options.rows) if "faiss" in options.parts else None
        )
        if "build" in options.parts:
            measure_build(report, run_part("build", app.settings.home), plain_faiss_s)
    if "kinds" in options.parts:
        measure_other_vectors(report, options.rows)
    report.write()


if __name__ == "__main__":
    main()
