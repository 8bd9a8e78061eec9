"""Lookalike's index compared with plain FAISS, pgvector, hnswlib and usearch at equal recall.

    pip install -e ".[bench]"
    python -m bench.search.ann_comparison --rows 100000

All hold the same vectors and use the lowest effort (lists or `ef`) that reaches a recall@10 of 0.99
on one half of the queries; the other half is measured alternately, with one thread and with two.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import HalfVector
from pgvector.psycopg import register_vector

from app.bootstrap import App
from app.db.engine import database_url
from app.evaluation.recall_audit import MAX_ROUNDING
from app.index.faiss_library import faiss
from app.types import Query, Vector, Vectors
from bench.data.catalogue import catalogue, load_durations
from bench.data.vectors import generate_vectors
from bench.harness.side_by_side import BenchmarkReport, Measurement, ratio

K = 10
GOAL = 0.99
QUERIES = 400
SLICE_SECONDS = 2.0
EFFORTS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
GRAPH_LINKS, CONSTRUCTION_CANDIDATES = 16, 100
"""Links per node and candidates per insertion, the same for hnswlib and usearch."""

FULL_TRAINING_ROWS, TRAINING_POINTS_PER_LIST = 200_000, 64
"""Above this number of rows plain FAISS trains on 64 rows per list, a quarter of its default."""

Ids = NDArray[np.int64]
SearchFunction = Callable[[Vector, int], Sequence[int]]
"""Returns the ids of the ten nearest rows for a query and an effort; one per thread."""


@dataclass
class Candidate:
    """A system to compare: its search function, the cost of its index, and the tuned effort."""

    name: str
    new_search: Callable[[], SearchFunction]
    """Creates the search function of a thread."""
    build_s: float | None
    bytes: int | None
    efforts: Sequence[int] = EFFORTS
    """Efforts to try, ascending."""
    effort: int = 0
    recall: float = 0.0


def lookalike_candidates(app: App) -> Iterator[Candidate]:
    """The index as searches use it, and a whole search with product details."""
    build = app.indexer.rebuild()
    index = app.files.open(build)
    fixed = (0,)  # the build has tuned the effort

    def new_index_search() -> SearchFunction:
        return lambda query, _: index.nominate(query, K).ids.tolist()

    def new_service_search() -> SearchFunction:
        model = app.catalog.model().id

        def search(query: Vector, _: int) -> Sequence[int]:
            result = app.search.search(Query(vector=query, model_id=model, k=K))
            assert result.plan.path == "faiss", result.plan
            return [match.picture_id for match in result.matches]

        return search

    yield Candidate("Lookalike, index", new_index_search, build.seconds, build.size, fixed)
    yield Candidate("Lookalike, search with details", new_service_search, None, None, fixed)


def plain_faiss(ids: Ids, vectors: Vectors) -> Candidate:
    """FAISS inverted lists of 16-bit vectors, with the OpenBLAS kernel of this processor.

    Above FULL_TRAINING_ROWS it trains on a sample; with its defaults it would train on all rows.
    """
    library, dim = faiss(), vectors.shape[1]
    lists = int(4 * len(ids) ** 0.5)
    quantizer = library.IndexFlatIP(dim)
    index = library.IndexIVFScalarQuantizer(
        quantizer, dim, lists, library.ScalarQuantizer.QT_fp16, library.METRIC_INNER_PRODUCT
    )
    if len(ids) > FULL_TRAINING_ROWS:
        index.cp.max_points_per_centroid = TRAINING_POINTS_PER_LIST
    began = time.monotonic()
    index.train(vectors)
    index.add_with_ids(vectors, ids)
    seconds = time.monotonic() - began

    def new_search() -> SearchFunction:
        def search(query: Vector, effort: int) -> Sequence[int]:
            parameters = library.SearchParametersIVF(nprobe=min(effort, lists))
            nearest: list[int] = index.search(query[np.newaxis], K, params=parameters)[1][
                0
            ].tolist()
            return nearest

        return search

    return Candidate("FAISS IVF", new_search, seconds, 2 * dim * len(ids) + 8 * len(ids))


def pgvector(app: App) -> Candidate:
    """An HNSW index of pgvector on the same table, with plain SQL."""
    with app.engine.connect() as connection:
        size = connection.exec_driver_sql(
            "SELECT pg_relation_size('embedding_m1_hnsw_idx')"
        ).scalar_one()
    url = database_url(app.settings)
    sql = """SELECT picture_id FROM embedding_m1
        ORDER BY vec::halfvec(512) <=> %(q)s::halfvec(512) LIMIT 10"""

    def new_search() -> SearchFunction:
        connection = psycopg.connect(url, autocommit=True)
        register_vector(connection)
        connection.execute("SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan")
        current_effort = 0

        def search(query: Vector, effort: int) -> Sequence[int]:
            nonlocal current_effort
            if effort != current_effort:
                connection.execute(f"SET hnsw.ef_search = {min(effort, 1000)}")
                current_effort = effort
            rows = connection.execute(sql, {"q": HalfVector(query)}, prepare=True, binary=True)
            return [row[0] for row in rows.fetchall()]

        return search

    return Candidate("pgvector HNSW", new_search, load_durations(app).get("hnsw_s"), size)


def hnswlib(ids: Ids, vectors: Vectors) -> Candidate:
    import hnswlib as library

    index = library.Index(space="ip", dim=vectors.shape[1])
    index.init_index(max_elements=len(ids), M=GRAPH_LINKS, ef_construction=CONSTRUCTION_CANDIDATES)
    began = time.monotonic()
    index.add_items(vectors, ids)
    seconds = time.monotonic() - began

    def new_search() -> SearchFunction:
        def search(query: Vector, effort: int) -> Sequence[int]:
            index.set_ef(effort)
            nearest: list[int] = index.knn_query(query, K, num_threads=1)[0][0].tolist()
            return nearest

        return search

    size = len(ids) * (4 * vectors.shape[1] + 4 * (2 * GRAPH_LINKS + 1) + 8)
    return Candidate("hnswlib", new_search, seconds, size, [n for n in EFFORTS if n >= K])


def usearch(ids: Ids, vectors: Vectors) -> Candidate:
    from usearch.index import Index

    index = Index(
        ndim=vectors.shape[1], metric="ip", dtype="f16", connectivity=GRAPH_LINKS,
        expansion_add=CONSTRUCTION_CANDIDATES,
    )  # fmt: skip
    began = time.monotonic()
    index.add(ids.astype(np.uint64), vectors)
    seconds = time.monotonic() - began

    def new_search() -> SearchFunction:
        def search(query: Vector, effort: int) -> Sequence[int]:
            index.expansion_search = effort
            nearest: list[int] = index.search(query, K, threads=1).keys.tolist()
            return nearest

        return search

    return Candidate(
        "usearch f16", new_search, seconds, index.memory_usage, [n for n in EFFORTS if n >= K]
    )


def tenth_similarities(vectors: Vectors, queries: Vectors) -> NDArray[np.float32]:
    """Similarity of each query's tenth nearest row, less the tolerance for ties; (queries,)."""
    best = np.full((len(queries), K), -np.inf, dtype=np.float32)
    for begin in range(0, len(vectors), 65_536):
        scores = np.hstack([best, queries @ vectors[begin : begin + 65_536].T])
        best = np.partition(scores, scores.shape[1] - K, axis=1)[:, -K:]
    return (best.min(axis=1) - MAX_ROUNDING).astype(np.float32)


def tune(candidate: Candidate, vectors: Vectors, queries: Vectors) -> None:
    """Set the lowest effort that reaches the goal on the first half of the queries, and the recall
    on the other half."""
    floors, half = tenth_similarities(vectors, queries), len(queries) // 2
    search = candidate.new_search()

    def recall(part: slice, effort: int) -> float:
        hits = []
        for query, floor in zip(queries[part], floors[part], strict=True):
            rows = np.asarray(search(query, effort), dtype=np.int64) - 1
            hits.append(float((vectors[rows] @ query >= floor).sum()))
        return sum(hits) / (K * len(hits))

    for effort in candidate.efforts:
        candidate.effort = effort
        if recall(slice(half), effort) >= GOAL:
            break
    candidate.recall = recall(slice(half, None), candidate.effort)


def measure_load(candidate: Candidate, queries: Vectors, threads: int) -> tuple[list[float], float]:
    """Milliseconds of each search, and searches per second, of `threads` during SLICE_SECONDS."""
    searches = [candidate.new_search() for _ in range(threads)]
    times: list[list[float]] = [[] for _ in searches]
    for search in searches:
        for query in queries[:20]:
            search(query, candidate.effort)
    until = time.perf_counter() + SLICE_SECONDS

    def work(number: int) -> None:
        search, position = searches[number], number * 7
        while (began := time.perf_counter()) < until:
            search(queries[position % len(queries)], candidate.effort)
            times[number].append((time.perf_counter() - began) * 1000)
            position += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    all_times = [ms for thread_times in times for ms in thread_times]
    return all_times, len(all_times) / (time.perf_counter() - began)


def measure(
    candidates: Sequence[Candidate], queries: Vectors, rounds: int, report: BenchmarkReport
) -> None:
    """Measure all systems alternately and add a row for each."""
    ms: dict[tuple[str, int], list[float]] = {}
    per_second: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for threads in (1, 2):
            for each in candidates:
                times, rate = measure_load(each, queries, threads)
                ms.setdefault((each.name, threads), []).extend(times)
                per_second.setdefault((each.name, threads), []).append(rate)
    index_rate = Measurement(tuple(per_second[candidates[0].name, 1]), "/s")
    for each in candidates:
        single = Measurement(tuple(per_second[each.name, 1]), "/s")
        latency = np.percentile(ms[each.name, 1], (50, 99))
        report.row(
            system=each.name, effort=each.effort or "tuned by the build", recall=each.recall,
            p50_ms=float(latency[0]), p99_ms=float(latency[1]), one_thread=single,
            two_threads=Measurement(tuple(per_second[each.name, 2]), "/s"),
            index_rate_by_this=ratio(index_rate, single), build_s=each.build_s,
            MB=None if each.bytes is None else each.bytes / 1e6,
        )  # fmt: skip


def build_candidates(options: argparse.Namespace, app: App) -> Iterator[Candidate]:
    """Lookalike, and the systems given with --beside."""
    yield from lookalike_candidates(app)
    vectors = all_vectors(options.rows)
    ids = np.arange(1, len(vectors) + 1, dtype=np.int64)
    for name in options.beside or NAMES:
        yield pgvector(app) if name == "pgvector" else LIBRARIES[name](ids, vectors)


LIBRARIES = {"faiss": plain_faiss, "hnswlib": hnswlib, "usearch": usearch}
NAMES = ("faiss", "pgvector", "hnswlib", "usearch")


def all_vectors(rows: int) -> Vectors:
    """The vectors of `catalogue`, ordered by picture id; shape (rows, 512)."""
    blocks = range(0, rows, 10_000)
    return np.vstack([generate_vectors(min(10_000, rows - begin), begin + 1) for begin in blocks])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--beside",
        action="append",
        choices=NAMES,
        help="system to compare with (repeatable; default all)",
    )
    options = parser.parse_args()
    report = BenchmarkReport(
        f"ann_comparison_{options.rows}",
        f"Index search, {options.rows:,} vectors of 512 dimensions",
    )
    queries, vectors = generate_vectors(QUERIES, seed=99), all_vectors(options.rows)
    with catalogue(options.rows, hnsw=True) as app:
        candidates: list[Any] = []
        for candidate in build_candidates(options, app):
            tune(candidate, vectors, queries)
            candidates.append(candidate)
            print(
                f"{candidate.name}: effort {candidate.effort}, recall {candidate.recall:.4f}",
                flush=True,
            )
        measure(candidates, queries[QUERIES // 2 :], options.rounds, report)
    index = candidates[0]
    report.goal("recall@10 of the index on queries not used for tuning", index.recall, GOAL)
    report.write()


if __name__ == "__main__":
    main()
