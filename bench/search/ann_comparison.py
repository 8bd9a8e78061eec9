"""Search alone: Lookalike's index beside bare FAISS, pgvector, hnswlib and usearch at equal recall.

    pip install -e ".[bench]"
    python -m bench.search.ann_comparison --rows 100000

Each is given the same vectors and the least effort at which it reaches recall@10 of 0.99 on one
half of the queries; the other half is timed, in turn, with one thread and with two.
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
from app.index.faiss_index import faiss
from app.types import Query, Vector, Vectors
from bench.data.catalogue import catalogue, drawn, filling
from bench.harness.side_by_side import Report, Sample, ratio

K = 10
GOAL = 0.99
QUERIES = 400
SECONDS = 2.0
EFFORTS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
LINKS, CANDIDATES = 16, 100
"""Links a node and candidates an insertion, alike for hnswlib and usearch."""

SOME, POINTS = 200_000, 64
"""Above so many rows FAISS trains on so many a list, a quarter of what it takes by default."""

Ids = NDArray[np.int64]
Ask = Callable[[Vector, int], Sequence[int]]
"""The ids of the ten nearest, with so much effort; made once a thread."""


@dataclass
class Contender:
    """One way of searching: how to make it for a thread, and what it took to get there."""

    name: str
    ask: Callable[[], Ask]
    build_s: float | None
    bytes: int | None
    efforts: Sequence[int] = EFFORTS
    effort: int = 0
    recall: float = 0.0


def lookalike(app: App) -> Iterator[Contender]:
    """The index as searches use it, and the whole search with the products' details."""
    built = app.indexer.rebuild()
    index = app.files.open(built)
    fixed = (0,)  # the build has chosen its effort

    def nominate() -> Ask:
        return lambda query, _: index.nominate(query, K).ids.tolist()

    def whole() -> Ask:
        model = app.catalog.model().id

        def ask(query: Vector, _: int) -> Sequence[int]:
            found = app.search.search(Query(vector=query, model_id=model, k=K))
            assert found.plan.path == "faiss", found.plan
            return [match.picture_id for match in found.matches]

        return ask

    yield Contender("Lookalike, index", nominate, built.seconds, built.size, fixed)
    yield Contender("Lookalike, search with details", whole, None, None, fixed)


def bare_faiss(ids: Ids, vectors: Vectors) -> Contender:
    """What FAISS does by itself, told which processor this is; of many rows it trains on some, for
    with its default it would train on all."""
    library, dim = faiss(), vectors.shape[1]
    lists = int(4 * len(ids) ** 0.5)
    quantizer = library.IndexFlatIP(dim)
    index = library.IndexIVFScalarQuantizer(
        quantizer, dim, lists, library.ScalarQuantizer.QT_fp16, library.METRIC_INNER_PRODUCT
    )
    if len(ids) > SOME:
        index.cp.max_points_per_centroid = POINTS
    began = time.monotonic()
    index.train(vectors)
    index.add_with_ids(vectors, ids)
    seconds = time.monotonic() - began

    def make() -> Ask:
        def ask(query: Vector, effort: int) -> Sequence[int]:
            how = library.SearchParametersIVF(nprobe=min(effort, lists))
            found: list[int] = index.search(query[np.newaxis], K, params=how)[1][0].tolist()
            return found

        return ask

    return Contender("FAISS IVF", make, seconds, 2 * dim * len(ids) + 8 * len(ids))


def pgvector(app: App) -> Contender:
    """PostgreSQL by itself: pgvector's HNSW on the same table."""
    with app.engine.connect() as connection:
        size = connection.exec_driver_sql(
            "SELECT pg_relation_size('embedding_m1_vec_idx')"
        ).scalar_one()
    url = database_url(app.settings)
    sql = """SELECT picture_id FROM embedding_m1
        ORDER BY vec::halfvec(512) <=> %(q)s::halfvec(512) LIMIT 10"""

    def make() -> Ask:
        connection = psycopg.connect(url, autocommit=True)
        register_vector(connection)
        connection.execute("SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan")
        effort_now = 0

        def ask(query: Vector, effort: int) -> Sequence[int]:
            nonlocal effort_now
            if effort != effort_now:
                connection.execute(f"SET hnsw.ef_search = {min(effort, 1000)}")
                effort_now = effort
            rows = connection.execute(sql, {"q": HalfVector(query)}, prepare=True, binary=True)
            return [row[0] for row in rows.fetchall()]

        return ask

    return Contender("pgvector HNSW", make, filling(app).get("hnsw_s"), size)


def hnswlib(ids: Ids, vectors: Vectors) -> Contender:
    import hnswlib as library

    index = library.Index(space="ip", dim=vectors.shape[1])
    index.init_index(max_elements=len(ids), M=LINKS, ef_construction=CANDIDATES)
    began = time.monotonic()
    index.add_items(vectors, ids)
    seconds = time.monotonic() - began

    def make() -> Ask:
        def ask(query: Vector, effort: int) -> Sequence[int]:
            index.set_ef(effort)
            found: list[int] = index.knn_query(query, K, num_threads=1)[0][0].tolist()
            return found

        return ask

    size = len(ids) * (4 * vectors.shape[1] + 4 * (2 * LINKS + 1) + 8)
    return Contender("hnswlib", make, seconds, size, [n for n in EFFORTS if n >= K])


def usearch(ids: Ids, vectors: Vectors) -> Contender:
    from usearch.index import Index

    index = Index(
        ndim=vectors.shape[1], metric="ip", dtype="f16", connectivity=LINKS,
        expansion_add=CANDIDATES,
    )  # fmt: skip
    began = time.monotonic()
    index.add(ids.astype(np.uint64), vectors)
    seconds = time.monotonic() - began

    def make() -> Ask:
        def ask(query: Vector, effort: int) -> Sequence[int]:
            index.expansion_search = effort
            found: list[int] = index.search(query, K, threads=1).keys.tolist()
            return found

        return ask

    return Contender(
        "usearch f16", make, seconds, index.memory_usage, [n for n in EFFORTS if n >= K]
    )


def floors(vectors: Vectors, queries: Vectors) -> NDArray[np.float32]:
    """The similarity of each query's tenth nearest row, less what counts as equal."""
    best = np.full((len(queries), K), -np.inf, dtype=np.float32)
    for begin in range(0, len(vectors), 65_536):
        scores = np.hstack([best, queries @ vectors[begin : begin + 65_536].T])
        best = np.partition(scores, scores.shape[1] - K, axis=1)[:, -K:]
    return (best.min(axis=1) - MAX_ROUNDING).astype(np.float32)


def tune(contender: Contender, vectors: Vectors, queries: Vectors) -> None:
    """Take the least effort that reaches the goal on the first half of the queries, and note the
    recall on the other half."""
    least, half, ask = floors(vectors, queries), len(queries) // 2, contender.ask()

    def recall(part: slice, effort: int) -> float:
        hits = [
            float(
                (vectors[np.asarray(ask(query, effort), dtype=np.int64) - 1] @ query >= floor).sum()
            )
            for query, floor in zip(queries[part], least[part], strict=True)
        ]
        return sum(hits) / (K * len(hits))

    for effort in contender.efforts:
        contender.effort = effort
        if recall(slice(half), effort) >= GOAL:
            break
    contender.recall = recall(slice(half, None), contender.effort)


def timed(contender: Contender, queries: Vectors, threads: int) -> tuple[list[float], float]:
    """Milliseconds of each search, and searches a second, of so many threads for a while."""
    asks = [contender.ask() for _ in range(threads)]
    took: list[list[float]] = [[] for _ in asks]
    for ask in asks:
        for query in queries[:20]:
            ask(query, contender.effort)
    until = time.perf_counter() + SECONDS

    def work(number: int) -> None:
        ask, place = asks[number], number * 7
        while (began := time.perf_counter()) < until:
            ask(queries[place % len(queries)], contender.effort)
            took[number].append((time.perf_counter() - began) * 1000)
            place += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    every = [ms for each in took for ms in each]
    return every, len(every) / (time.perf_counter() - began)


def measure(contenders: Sequence[Contender], queries: Vectors, rounds: int, report: Report) -> None:
    ms: dict[tuple[str, int], list[float]] = {}
    per_second: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for threads in (1, 2):
            for each in contenders:
                found, rate = timed(each, queries, threads)
                ms.setdefault((each.name, threads), []).extend(found)
                per_second.setdefault((each.name, threads), []).append(rate)
    one = Sample(tuple(per_second[contenders[0].name, 1]), "a second")
    for each in contenders:
        alone = Sample(tuple(per_second[each.name, 1]), "a second")
        latency = np.percentile(ms[each.name, 1], (50, 99))
        report.row(
            what=each.name, effort=each.effort or "chosen by the build", recall=each.recall,
            p50_ms=float(latency[0]), p99_ms=float(latency[1]), one_thread=alone,
            two_threads=Sample(tuple(per_second[each.name, 2]), "a second"),
            index_beside_it=ratio(one, alone), build_s=each.build_s,
            MB=None if each.bytes is None else each.bytes / 1e6,
        )  # fmt: skip


def made(words: argparse.Namespace, app: App) -> Iterator[Contender]:
    yield from lookalike(app)
    vectors = whole(words.rows)
    ids = np.arange(1, len(vectors) + 1, dtype=np.int64)
    for name in words.beside or NAMES:
        yield pgvector(app) if name == "pgvector" else LIBRARIES[name](ids, vectors)


LIBRARIES = {"faiss": bare_faiss, "hnswlib": hnswlib, "usearch": usearch}
NAMES = ("faiss", "pgvector", "hnswlib", "usearch")


def whole(rows: int) -> Vectors:
    """The vectors of `catalogue`, in the order of their ids."""
    blocks = range(0, rows, 10_000)
    return np.vstack([drawn(min(10_000, rows - begin), begin + 1) for begin in blocks])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--beside", action="append", choices=NAMES, help="else all of them")
    words = parser.parse_args()
    report = Report(f"search_alone_{words.rows}", f"Search alone, {words.rows:,} vectors of 512")
    queries, vectors = drawn(QUERIES, seed=99), whole(words.rows)
    with catalogue(words.rows, hnsw=True) as app:
        contenders: list[Any] = []
        for contender in made(words, app):
            tune(contender, vectors, queries)
            contenders.append(contender)
            print(
                f"{contender.name}: effort {contender.effort}, recall {contender.recall:.4f}",
                flush=True,
            )
        measure(contenders, queries[QUERIES // 2 :], words.rounds, report)
    index = contenders[0]
    report.goal("recall@10 of the index on queries it was not tuned with", index.recall, GOAL)
    report.write()


if __name__ == "__main__":
    main()
