"""Compares a flat FAISS index with inverted lists: latency, build time and recall by size.

    python -m bench.index.flat_vs_ivf --rows 1000 --rows 5000 --rows 20000

Both hold the same generated vectors; the inverted lists are tuned to the recall goal of a build.
They are built alternately and searched alternately, one query at a time on one thread. Recall is
measured as in a build.
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
from bench.data.vectors import generate_vectors
from bench.harness.build_parts import GOAL, NOMINATED, loose_clusters, no_clusters
from bench.harness.side_by_side import BenchmarkReport, measure_alternately, ratio

VECTOR_KINDS: dict[str, Callable[[int, int], Any]] = {
    "clusters": generate_vectors, "loose clusters": loose_clusters, "no clusters": no_clusters,
}  # fmt: skip
SIZES = [1000, 2000, 5000, 10_000, 20_000]
QUERIES_PER_ROUND = 100
"""A round measures the median over this number of queries."""


@contextmanager
def flat_limit(rows: int) -> Iterator[None]:
    """Indexes of up to `rows` rows are flat during the block."""
    with patch.object(faiss_index, "FLAT_ROWS", rows):
        yield


def measure(kind: str, rows: int, rounds: int, report: BenchmarkReport) -> None:
    """Build and search both indexes over `rows` vectors of one distribution."""
    content = EmbeddingSnapshot(
        "1:1:", np.arange(rows, dtype=np.int64), VECTOR_KINDS[kind](rows, 1).astype("f2")
    )
    benchmark = RecallBenchmark(content, faiss_index.DEPTHS)
    indexes: dict[str, AnnIndex] = {}
    builders = {
        "flat": partial(build_index, indexes, "flat", content, benchmark, rows),
        "ivf": partial(build_index, indexes, "ivf", content, benchmark, 0),
    }
    build_times = measure_alternately(builders, 3)
    queries = benchmark.queries
    latencies = measure_alternately(
        {name: partial(p50_ms, index, queries) for name, index in indexes.items()},
        rounds,
        unit="ms",
    )
    for name, index in indexes.items():
        report.row(
            vectors=kind, rows=rows, index=name, p50=latencies[name],
            relative_to_flat=ratio(latencies[name], latencies["flat"]), build=build_times[name],
            recall_at_10=benchmark.recall(index),
            recall_with_filter=benchmark.filtered_recall(index),
            lists=str(dict(index.parameters)),
        )  # fmt: skip


def build_index(
    indexes: dict[str, AnnIndex],
    name: str,
    content: EmbeddingSnapshot,
    benchmark: RecallBenchmark,
    flat_rows: int,
) -> None:
    """Build and tune an index as a build does, without measuring its recall."""
    with flat_limit(flat_rows):
        index = faiss_index.build(content.ids, content.vectors)
    indexes[name] = recall.tune(index, benchmark, GOAL)
    assert indexes[name].kind == name


def p50_ms(index: AnnIndex, queries: Vectors) -> float:
    """Median milliseconds of index searches for ten products."""
    seconds = []
    for query in queries[:QUERIES_PER_ROUND]:
        began = time.perf_counter()
        index.nominate(query, NOMINATED, 10)
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds)) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, action="append", help="index size (repeatable)")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    report = BenchmarkReport("flat_vs_ivf", "Flat index and inverted lists")
    for kind in VECTOR_KINDS:
        for rows in options.rows or SIZES:
            measure(kind, rows, options.rounds, report)
    report.write()


if __name__ == "__main__":
    main()
