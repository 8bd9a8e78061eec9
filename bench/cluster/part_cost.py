"""What building and searching an index take of a processor, by its size: inputs of the simulation.

    python -m bench.cluster.part_cost [--rows 20000 60000] [--calls 300]

Processor time of one thread, so that other work on the machine matters little: training, assigning,
encoding in 2 bits, measuring recall and tuning, and a search for ten results with the lists and
nominees that tuning chose. The vectors are those of `bench.index.fallback`, with a spectrum like
CLIP's, in clusters of 40. Then a call of an actor of Ray that returns 100 nominees, and merging the
nominees of 100 parts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from app.index import faiss_index, faiss_parts, kmeans, recall
from app.index.embedding_reader import EmbeddingSnapshot
from app.index.faiss_library import one_thread
from app.index.recall import RecallBenchmark
from app.types import Vectors
from bench.cluster.task_cost import cpu_seconds
from bench.harness.side_by_side import BenchmarkReport
from bench.index.fallback import drawn

IN_A_CLUSTER = 40
NOMINEES = 100
DIM = 512
SEARCHES = 200
PARTS = 100
GOAL = 0.99


def main() -> None:
    options = arguments()
    report = BenchmarkReport("cluster_part_cost", "Building and searching a part of an index")
    for rows in options.rows:
        report.row(**cost_of_part(rows))
    report.write()
    report = BenchmarkReport("cluster_actor_cost", "A call of an actor with the nominees of a part")
    report.row(**cost_of_call(options.calls))
    report.row(merging_parts=PARTS, cpu_ms=1000 * cpu_of(merge_parts, 50))
    report.write()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 60_000])
    parser.add_argument("--calls", type=int, default=300)
    return parser.parse_args()


def cost_of_part(rows: int) -> dict[str, Any]:
    """Processor time in microseconds a row of each stage, and milliseconds of a search."""
    vectors = drawn(rows, 1, rows // IN_A_CLUSTER)
    source = EmbeddingSnapshot("1:1:", np.arange(1, rows + 1), vectors)
    lists = faiss_index.list_count(rows)
    figures: dict[str, Any] = {"rows": rows, "lists": lists}
    with one_thread():
        began = time.process_time()
        centroids = kmeans.train(vectors, lists)
        figures["train_s"] = time.process_time() - began
        figures["assign_us_a_row"] = 1e6 * cpu_of(lambda: kmeans.assign(vectors, centroids)) / rows
        index = faiss_index.inverted_lists(centroids, faiss_index.CODES[0])
        added = cpu_of(lambda: faiss_index.add(index, source.ids, vectors))
        figures["encode_us_a_row"] = 1e6 * added / rows - figures["assign_us_a_row"]
        figures["bytes_a_row"] = len(faiss_parts.serialized(index)) / rows
        began = time.process_time()
        measure = RecallBenchmark(source, faiss_index.DEPTHS, pictures=vectors)
        tuned = recall.tune(index, measure, GOAL)
        assert tuned is not None
        figures["measure_us_a_row"] = 1e6 * (time.process_time() - began) / rows
        queries = iter(drawn(SEARCHES, 2, rows // IN_A_CLUSTER).astype(np.float32))
        figures["search_ms"] = 1000 * cpu_of(lambda: tuned.nominate(next(queries), 10), SEARCHES)
    figures["lists_probed"] = round(lists * tuned.probed_share(10))
    figures["nominees"] = tuned.pool(10)
    return figures


def cpu_of(work: Callable[[], object], times: int = 1) -> float:
    """Seconds of processor time of one call, in all threads of this process."""
    began = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - began) / times


class Part:
    """An actor that returns nominees without searching."""

    def nominate(self, query: Vectors) -> tuple[Any, Any]:
        return np.arange(NOMINEES, dtype=np.int64), np.zeros(NOMINEES, np.float32)


def cost_of_call(calls: int) -> dict[str, Any]:
    """Milliseconds of a call, elapsed and of processor time of all processes of Ray."""
    import ray

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        part = ray.remote(Part).options(num_cpus=0).remote()
        query, times = np.zeros(DIM, np.float32), list[float]()
        for _ in range(50):
            ray.get(part.nominate.remote(query))
        before = cpu_seconds()
        for _ in range(calls):
            began = time.perf_counter()
            ray.get(part.nominate.remote(query))
            times.append(1000 * (time.perf_counter() - began))
        cpu_ms = 1000 * (cpu_seconds() - before) / calls
    finally:
        ray.shutdown()
    p50, p99 = (float(np.percentile(times, each)) for each in (50, 99))
    return {"calls": calls, "cpu_ms": cpu_ms, "p50_ms": p50, "p99_ms": p99}


def merge_parts() -> None:
    """The best nominees of all parts."""
    random = np.random.default_rng(1)
    similarities = random.random((PARTS, NOMINEES), np.float32).ravel()
    ids = np.arange(similarities.size)
    best = np.argpartition(similarities, -NOMINEES)[-NOMINEES:]
    ids[best[np.argsort(similarities[best])]].tolist()


if __name__ == "__main__":
    main()
