"""How fast an index is made, table to published build, how much memory it takes, how good it is.

    python -m bench.index.build --rows 100000

Reading is measured beside psql's COPY to nowhere, training and filling beside FAISS alone on the
same vectors in memory, with its defaults. Each is a process of its own, with no word for OpenBLAS
in its environment, as on most machines.
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
from app.index.embedding_reader import read_embeddings
from bench.data.catalogue import catalogue
from bench.harness.build_parts import GOAL
from bench.harness.side_by_side import Report, Sample, in_turn, ratio

ROUNDS = 10
"""Of k-means, that FAISS takes for inverted lists unless it is told otherwise."""

WHOLE, TENTH = 200_000, 10
"""Up to so many rows FAISS is waited for; beyond, a tenth of the rows is, for a few rounds."""


def part(*words: object) -> dict[str, Any]:
    """The figures of one part, measured in a process of its own."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
    command = [sys.executable, "-m", "bench.harness.build_parts", *map(str, words)]
    done = subprocess.run(command, env=plain, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def reading(report: Report, app: App, rows: int, rounds: int) -> None:
    """The read of a build, looked over row by row, and psql's of the same table."""
    model = app.catalog.model()
    psql = [str(binaries.binary("psql")), "-qAt", for_psql(database_url(app.settings)), "-c"]
    copy = f"COPY embedding_m{model.id} (picture_id, vec) TO STDOUT (FORMAT BINARY)"
    times = in_turn(
        {
            "psql COPY to nowhere": lambda: _to_nowhere([*psql, copy]),
            "read of a build": lambda: _read(app),
        },
        rounds,
    )
    for name, took in times.items():
        report.row(read=name, seconds=took, rows_a_second=rows / took.p50)
    theirs, own = times.values()
    report.goal("rows a second of the read, to psql's", ratio(theirs, own), 0.9)


def _to_nowhere(command: list[str]) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def _read(app: App) -> None:
    read_embeddings(app.engine, app.catalog.model())


def bare_faiss(report: Report, rows: int) -> float:
    """Seconds FAISS alone takes to train and to fill."""
    if rows <= WHOLE:
        found = part("faiss", rows, 0, 1)
    else:
        one, three = part("faiss", rows, 1, TENTH), part("faiss", rows, 3, TENTH)
        a_round = TENTH * (three["train"] - one["train"]) / 2
        found = {"train": ROUNDS * a_round, "add": TENTH * one["add"]}
        report.note(
            f"FAISS alone is computed: a tenth of the rows was added in {one['add']:.1f} s, and "
            f"trained on in {one['train']:.1f} s with one round of k-means, {three['train']:.1f} s "
            "with three; ten rounds and all rows take as many times as long."
        )
    report.row(faiss_alone="train", seconds=found["train"])
    report.row(faiss_alone="add", seconds=found["add"])
    return float(found["train"] + found["add"])


def building(report: Report, found: dict[str, Any], bare: float | None) -> None:
    """The stages of a build, and its goals."""
    stages = found["stages"]
    for name, seconds in stages.items():
        report.row(stage=name, seconds=float(seconds))
    report.row(stage="table to published build", seconds=float(found["seconds"]))
    report.row(stage="open and hash the file", seconds=float(found["open"]))
    report.row(kind=found["kind"], parameters=json.dumps(found["parameters"]))
    made = stages["train"] + stages["add"]
    if bare is not None:
        report.goal("train and add, to FAISS alone", made / bare, 0.6, at_least=False)
        without_io = made + sum(stages[it] for it in ("exact answers", "tune", "filtered recall"))
        report.goal("with all that is measured", without_io / bare, 0.6, at_least=False)
    report.goal(
        "memory, to the index and one copy of the vectors (16 bits)",
        found["of index and vectors"], 1.3, at_least=False,
    )  # fmt: skip
    report.goal("recall@10", found["recall"][0], GOAL)
    report.goal("recall@10 with filters", found["recall"][2], GOAL)
    report.goal("p50 of a nomination, ms", found["p50_ms"], 1.0, at_least=False)


def other_kinds(report: Report, rows: int) -> None:
    """What the automatic choice makes of vectors that are harder."""
    for name, found in part("kinds", rows).items():
        report.row(
            vectors=name, recall_at_10=found["recall"][0], recall_at_50=found["recall"][1],
            p50_ms=Sample((found["p50_ms"],), "ms"), nprobe=json.dumps(found["parameters"]),
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5, help="of the read")
    parser.add_argument("--home", type=Path, help="a catalogue that is there, of so many rows")
    parser.add_argument(
        "--parts", nargs="+", default=["read", "faiss", "build", "kinds"], help="which to measure"
    )
    words = parser.parse_args()
    report = Report(f"build-{words.rows}", f"An index of {words.rows:,} pictures, 512 numbers each")
    there = words.home and App(Settings(home=words.home, model="embedded", sample_queries=False))
    with there if there else catalogue(words.rows, hnsw=True) as app:
        if "read" in words.parts:
            reading(report, app, words.rows, words.rounds)
        bare = bare_faiss(report, words.rows) if "faiss" in words.parts else None
        if "build" in words.parts:
            building(report, part("ours", app.settings.home), bare)
    if "kinds" in words.parts:
        other_kinds(report, words.rows)
    report.write()


if __name__ == "__main__":
    main()
