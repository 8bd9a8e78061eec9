"""The parts of `bench/index/build.py`; each runs as its own process and prints JSON.

python -m bench.harness.build_parts build FOLDER
python -m bench.harness.build_parts faiss ROWS ROUNDS
python -m bench.harness.build_parts kinds ROWS
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np

from app.bootstrap import App
from app.config import Settings
from app.db.queries import index_builds
from app.index import builder, faiss_index, kmeans, recall
from app.index.embedding_reader import EmbeddingSnapshot
from app.index.file_store import IndexFiles
from app.index.recall import RecallBenchmark
from app.types import Vectors
from bench.data.catalogue import BLOCK_ROWS
from bench.data.vectors import DIM, generate_vectors

GOAL = 0.99
NOMINATED = 26
"""Rows that a search for ten products fetches from the index."""


def measure_build(folder: str) -> dict[str, Any]:
    """A rebuild of the index of the catalogue in `folder`: seconds per stage, memory, time to open
    the file, recall."""
    seconds: dict[str, float] = {}
    for stage, owner, function in (
        ("sample", builder, "sample_rows"),
        ("train", kmeans, "train"),
        ("add", faiss_index, "add"),
        ("exact answers", RecallBenchmark, "__init__"),
        ("tune", recall, "tune"),
        ("filtered recall", RecallBenchmark, "filtered_recall"),
        ("write file", IndexFiles, "write"),
        ("into the database", index_builds, "save_file"),
    ):
        setattr(owner, function, _timed(seconds, stage, getattr(owner, function)))
    with App(Settings(home=Path(folder), model="embedded", sample_queries=False)) as app:
        app.catalog.model()
        _peak_memory_since_last_call()  # discards the peak of the start-up
        before = _peak_memory_since_last_call()
        build = app.indexer.rebuild()
        memory = _peak_memory_since_last_call() - before
        rest = build.seconds - sum(seconds.values())
        files = IndexFiles(app.files.folder)
        began = time.perf_counter()
        index = files.open(build)
        open_s = time.perf_counter() - began
        with app.engine.connect() as connection:
            assert index_builds.usable(connection, build.model_id)[0].id == build.id
        return {
            "stages": seconds | {"the rest": rest},
            "seconds": build.seconds,
            "beyond index": memory - build.size,
            "bytes per row": build.size / max(build.rows, 1),
            "open": open_s,
            "kind": build.kind,
            "parameters": dict(build.parameters),
            "recall": [build.recall_at_10, build.recall_at_50, build.recall_filtered],
            "p50_ms": _p50_ms(index, generate_vectors(500, seed=99)),
        }


def measure_plain_faiss(rows: int, rounds: int, subsample: int) -> dict[str, Any]:
    """Seconds of plain FAISS with its defaults on an array in memory.

    `rounds` is the number of k-means iterations, 0 for the default of ten. Only one row in
    `subsample` is used, with the number of lists for all rows: an iteration, and adding, compares
    every row with every list, so the time for all rows is `subsample` times as long.
    """
    import faiss as library

    lists, rows = int(4 * rows**0.5), rows // subsample
    vectors = np.empty((rows, DIM), np.float32)
    for begin in range(0, rows, BLOCK_ROWS):
        block = generate_vectors(min(BLOCK_ROWS, rows - begin), begin + 1)
        vectors[begin : begin + BLOCK_ROWS] = block
    quantizer = library.IndexFlatIP(DIM)
    index = library.IndexIVFScalarQuantizer(
        quantizer, DIM, lists, library.ScalarQuantizer.QT_fp16, library.METRIC_INNER_PRODUCT
    )
    if rounds:
        index.cp.niter = rounds
    began = time.perf_counter()
    index.train(vectors)
    train_s = time.perf_counter() - began
    began = time.perf_counter()
    index.add(vectors)
    return {"train": train_s, "add": time.perf_counter() - began}


def measure_vector_kinds(rows: int) -> dict[str, Any]:
    """Recall and latency of an index on other distributions, harder than that of the catalogue."""
    results = {}
    for name, generate in (("many loose clusters", loose_clusters), ("no clusters", no_clusters)):
        vectors = generate(rows, 1)
        content = EmbeddingSnapshot("1:1:", np.arange(rows, dtype=np.int64), vectors)
        index = faiss_index.build(content.ids, vectors)
        benchmark = RecallBenchmark(content, faiss_index.DEPTHS)
        index = recall.tune(index, benchmark, GOAL)
        results[name] = {
            "recall": [benchmark.recall(index, 10), benchmark.recall(index, 50)],
            "parameters": dict(index.parameters),
            "p50_ms": _p50_ms(index, benchmark.queries),
        }
    return results


def loose_clusters(rows: int, seed: int) -> Any:
    """Clusters of 50 vectors, as wide as the distance between centres; (rows, 512), float16."""
    centres = np.random.default_rng(0).standard_normal((rows // 50, DIM)).astype(np.float32)
    vectors = np.empty((rows, DIM), np.float16)
    for begin in range(0, rows, BLOCK_ROWS):
        random = np.random.default_rng(seed + begin)
        block = vectors[begin : begin + BLOCK_ROWS]
        nearby = centres[random.integers(0, len(centres), len(block))]
        block[:] = _unit(nearby + random.standard_normal(nearby.shape))
    return vectors


def no_clusters(rows: int, seed: int) -> Any:
    """A curved 32-dimensional manifold, covered evenly, with noise; (rows, 512), float16."""
    maps = np.random.default_rng(0)
    first = maps.standard_normal((32, DIM)) / 32**0.5
    second = maps.standard_normal((DIM, DIM)) / DIM**0.5
    hills = maps.standard_normal((300, 32))
    vectors = np.empty((rows, DIM), np.float16)
    for begin in range(0, rows, BLOCK_ROWS):
        random = np.random.default_rng(seed + begin)
        block = vectors[begin : begin + BLOCK_ROWS]
        count = len(block)
        positions = hills[random.integers(0, 300, count)] + 0.7 * random.standard_normal(
            (count, 32)
        )
        curved = _unit(np.tanh(2 * positions @ first) @ second)
        noise = 0.2 * random.standard_normal(curved.shape) / DIM**0.5
        block[:] = _unit(curved + noise)
    return vectors


def _unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _p50_ms(index: faiss_index.AnnIndex, queries: Vectors) -> float:
    """Median milliseconds of one index search, after 50 that are discarded."""
    seconds = []
    for query in queries:
        began = time.perf_counter()
        index.nominate(query, NOMINATED, 10)
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds[50:])) * 1000


def _peak_memory_since_last_call() -> int:
    """Peak resident memory of this process since the last call, in bytes."""
    status = Path("/proc/self/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current memory
    return peak


def _timed(
    seconds: dict[str, float], stage: str, function: Callable[..., Any]
) -> Callable[..., Any]:
    """The function, which also adds its duration to `seconds[stage]`."""

    @wraps(function)
    def timed(*arguments: Any, **keywords: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **keywords)
        finally:
            seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - began

    return timed


def main() -> None:
    part, *arguments = sys.argv[1:]
    if part == "build":
        print(json.dumps(measure_build(*arguments)))
    else:
        measure = {"faiss": measure_plain_faiss, "kinds": measure_vector_kinds}[part]
        print(json.dumps(measure(*map(int, arguments))))


if __name__ == "__main__":
    main()
