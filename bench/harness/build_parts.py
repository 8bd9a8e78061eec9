"""The parts of `bench/index/build.py`, each a process of its own that prints its figures as JSON.

python -m bench.harness.build_parts ours FOLDER
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
from bench.data.catalogue import BLOCK, DIM, drawn

GOAL = 0.99
ASKED = 26
"""Rows that a search for ten products has nominated."""


def ours(folder: str) -> dict[str, Any]:
    """Table to published build: seconds by stage, memory, the opening of its file, quality."""
    seconds: dict[str, float] = {}
    for name, owner, call in (
        ("read", builder, "read_embeddings"),
        ("train", kmeans, "train"),
        ("add", faiss_index, "_ivf"),
        ("exact answers", RecallBenchmark, "__init__"),
        ("tune", recall, "tune"),
        ("filtered recall", RecallBenchmark, "filtered_recall"),
        ("write file", IndexFiles, "write"),
        ("into the database", index_builds, "save_file"),
    ):
        setattr(owner, call, _timed(seconds, name, getattr(owner, call)))
    with App(Settings(home=Path(folder), model="embedded", sample_queries=False)) as app:
        app.catalog.model()
        _peak()
        before = _peak()  # what is held now; what the start took on its way would hide some
        build = app.indexer.rebuild()
        memory = _peak() - before
        rest = build.seconds - sum(seconds.values())
        files = IndexFiles(app.files.folder)
        began = time.perf_counter()
        index = files.open(build)
        opened = time.perf_counter() - began
        with app.engine.connect() as connection:
            assert index_builds.usable(connection, build.model_id)[0].id == build.id
        return {
            "stages": seconds | {"the rest": rest},
            "seconds": build.seconds,
            "memory": memory,
            "of index and vectors": memory / (build.size + build.rows * DIM * 2),
            "open": opened,
            "kind": build.kind,
            "parameters": dict(build.parameters),
            "recall": [build.recall_at_10, build.recall_at_50, build.recall_filtered],
            "p50_ms": _p50_ms(index, drawn(500, seed=99)),
        }


def faiss(rows: int, rounds: int, of: int) -> dict[str, Any]:
    """FAISS alone, all by default, on an array in memory; `rounds` of k-means, 0 for its ten.

    Of the rows only one in `of`, with the lists that all of them would have: each round, and
    adding, compares every row with every list, so that their time is that of all rows by `of`.
    """
    import faiss as library

    lists, rows = int(4 * rows**0.5), rows // of
    vectors = np.empty((rows, DIM), np.float32)
    for begin in range(0, rows, BLOCK):
        vectors[begin : begin + BLOCK] = drawn(min(BLOCK, rows - begin), begin + 1)
    quantizer = library.IndexFlatIP(DIM)
    index = library.IndexIVFScalarQuantizer(
        quantizer, DIM, lists, library.ScalarQuantizer.QT_fp16, library.METRIC_INNER_PRODUCT
    )
    if rounds:
        index.cp.niter = rounds
    began = time.perf_counter()
    index.train(vectors)
    trained = time.perf_counter()
    index.add(vectors)
    return {"train": trained - began, "add": time.perf_counter() - trained}


def kinds(rows: int) -> dict[str, Any]:
    """How good an index is on vectors of other kinds, harder than those of the catalogue."""
    found = {}
    for name, draw in (("many loose clusters", loose), ("no clusters", smooth)):
        vectors = draw(rows, 1)
        whole = EmbeddingSnapshot("1:1:", np.arange(rows, dtype=np.int64), vectors)
        index = faiss_index.build(whole.ids, vectors)
        benchmark = RecallBenchmark(whole, faiss_index.DEPTHS)
        index = recall.tune(index, benchmark, GOAL)
        found[name] = {
            "recall": [benchmark.recall(index, 10), benchmark.recall(index, 50)],
            "parameters": dict(index.parameters),
            "p50_ms": _p50_ms(index, benchmark.queries),
        }
    return found


def loose(rows: int, seed: int) -> Any:
    """Clusters of fifty, each as wide as the centres lie apart; float16."""
    centres = np.random.default_rng(0).standard_normal((rows // 50, DIM)).astype(np.float32)
    found = np.empty((rows, DIM), np.float16)
    for begin in range(0, rows, BLOCK):
        random = np.random.default_rng(seed + begin)
        some = centres[random.integers(0, len(centres), len(found[begin : begin + BLOCK]))]
        found[begin : begin + BLOCK] = _unit(some + random.standard_normal(some.shape))
    return found


def smooth(rows: int, seed: int) -> Any:
    """A bent surface of 32 dimensions, much of it covered evenly, with noise; float16."""
    maps = np.random.default_rng(0)
    first = maps.standard_normal((32, DIM)) / 32**0.5
    second = maps.standard_normal((DIM, DIM)) / DIM**0.5
    hills = maps.standard_normal((300, 32))
    found = np.empty((rows, DIM), np.float16)
    for begin in range(0, rows, BLOCK):
        random = np.random.default_rng(seed + begin)
        count = len(found[begin : begin + BLOCK])
        where = hills[random.integers(0, 300, count)] + 0.7 * random.standard_normal((count, 32))
        bent = _unit(np.tanh(2 * where @ first) @ second)
        noise = 0.2 * random.standard_normal(bent.shape) / DIM**0.5
        found[begin : begin + BLOCK] = _unit(bent + noise)
    return found


def _unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _p50_ms(index: faiss_index.AnnIndex, queries: Vectors) -> float:
    """Of one nomination, asked one after the other."""
    took = []
    for query in queries:
        began = time.perf_counter()
        index.nominate(query, ASKED, 10)
        took.append(time.perf_counter() - began)
    return float(np.median(took[50:])) * 1000


def _peak() -> int:
    """The most memory this process has held since the last call, in bytes."""
    said = Path("/proc/self/status").read_text()
    found = int(re.search(r"VmHWM:\s+(\d+) kB", said)[1]) * 1024
    Path("/proc/self/clear_refs").write_text("5")  # what it holds now is the new highest
    return found


def _timed(seconds: dict[str, float], name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(call)
    def timed(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return call(*arguments, **named)
        finally:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began

    return timed


def main() -> None:
    part, *words = sys.argv[1:]
    if part == "ours":
        print(json.dumps(ours(*words)))
    else:
        print(json.dumps({"faiss": faiss, "kinds": kinds}[part](*map(int, words))))


if __name__ == "__main__":
    main()
