"""Where inverted lists become faster than a flat index, and what they cost to build.

    python -m bench.index.flat_vs_ivf --rows 1000 --rows 5000 --rows 20000

The same drawn vectors as a flat index and as inverted lists that are tuned to the goal of a build,
made in turn and asked in turn, one query at a time on one thread. Recall is what the gate of a
build measures.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np

from app.index import faiss_index, recall
from app.index.embedding_reader import EmbeddingSnapshot
from app.index.faiss_index import AnnIndex
from app.index.recall import RecallBenchmark
from app.types import Vectors
from bench.data.catalogue import drawn
from bench.harness.build_parts import ASKED, GOAL, loose, smooth
from bench.harness.side_by_side import Report, in_turn, ratio

KINDS: dict[str, Callable[[int, int], Any]] = {
    "clusters": drawn, "loose clusters": loose, "no clusters": smooth,
}  # fmt: skip
SIZES = [1000, 2000, 5000, 10_000, 20_000]
AT_ONCE = 100
"""Queries that one round takes the median of."""


@contextmanager
def up_to(rows: int) -> Iterator[None]:
    """An index is flat up to so many rows."""
    with patch.object(faiss_index, "FLAT_ROWS", rows):
        yield


def measure(kind: str, rows: int, rounds: int, report: Report) -> None:
    whole = EmbeddingSnapshot(
        "1:1:", np.arange(rows, dtype=np.int64), KINDS[kind](rows, 1).astype("f2")
    )
    benchmark = RecallBenchmark(whole, faiss_index.DEPTHS)
    made: dict[str, AnnIndex] = {}
    ways = {
        "flat": partial(make, made, "flat", whole, benchmark, rows),
        "ivf": partial(make, made, "ivf", whole, benchmark, 0),
    }
    built = in_turn(ways, 3)
    queries = benchmark.queries
    asked = in_turn(
        {name: partial(p50_ms, made[name], queries) for name in made}, rounds, unit="ms"
    )
    for name, index in made.items():
        report.row(
            vectors=kind, rows=rows, index=name, p50=asked[name],
            to_flat=ratio(asked[name], asked["flat"]), built=built[name],
            recall_at_10=benchmark.recall(index), filtered=benchmark.filtered_recall(index),
            lists=str(dict(index.parameters)),
        )  # fmt: skip


def make(
    made: dict[str, AnnIndex],
    name: str,
    whole: EmbeddingSnapshot,
    benchmark: RecallBenchmark,
    flat: int,
) -> None:
    """The index as a build makes it, without what is measured of it afterwards."""
    with up_to(flat):
        index = faiss_index.build(whole.ids, whole.vectors)
    made[name] = recall.tune(index, benchmark, GOAL)
    assert made[name].kind == name


def p50_ms(index: AnnIndex, queries: Vectors) -> float:
    """The median of nominations for ten products."""
    took = []
    for query in queries[:AT_ONCE]:
        began = time.perf_counter()
        index.nominate(query, ASKED, 10)
        took.append(time.perf_counter() - began)
    return float(np.median(took)) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=15)
    words = parser.parse_args()
    report = Report("flat", "Flat or inverted lists")
    for kind in KINDS:
        for rows in words.rows or SIZES:
            measure(kind, rows, words.rounds, report)
    report.write()


if __name__ == "__main__":
    main()
