"""Searches of a build in parts by the actors of a cluster, beside the same in one process.

    python -m bench.cluster.actors [--rows 30000] [--parts 3] [--rounds 10] [--queries 20]

One catalogue has a build in one file and one in parts. The same queries for twelve products, plain
and folded, are searched in turn with the one file, with the parts in this process, and with the
parts in actors on one node of a cluster of this machine; then their nominees alone, and an empty
call of one actor. Ratios are of the medians of a round. Processor time is that of this process and
of all that Ray starts, with what these take without work; that of PostgreSQL is not in it. Actors
have the priority of this process, unless RAY_worker_niceness is set to Ray's own 15.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from sqlalchemy import text

from app.bootstrap import App
from app.cluster import parts
from app.index.builder import Indexer
from app.index.parted_index import PartedIndex
from app.types import Build, Query
from bench.cluster.task_cost import cpu_seconds
from bench.data.catalogue import catalogue
from bench.data.vectors import generate_vectors
from bench.harness.side_by_side import BenchmarkReport, Measurement, ratio

K, NOMINEES = 12, 100
FORMS = ("one file", "parts in the process", "parts in actors")
WAIT_S = 60.0
"""Parts are waited for, however busy the machine is."""


def main() -> None:
    options = arguments()
    with a_cluster() as address, catalogue(options.rows, own=True, titled=True) as app:
        builds = build_both(app, options.parts)
        on_cluster = {"search_on": address, "part_cpus": 0.1, "part_wait_s": WAIT_S,
                      "database_url": app.server_settings.database_url}  # fmt: skip
        with App(app.settings.model_copy(update=on_cluster)) as remote:
            forms = dict(zip(FORMS, ((app, builds[0]), (app, builds[1]), (remote, builds[1])),
                             strict=True))  # fmt: skip
            measure(forms, options)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--parts", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--queries", type=int, default=20, help="of each form in a round")
    return parser.parse_args()


@contextmanager
def a_cluster() -> Iterator[str]:
    """A cluster of one node, to which this process is connected; gives its address."""
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()


def build_both(app: App, count: int) -> tuple[Build, Build]:
    """A build in one file, and one in so many parts."""
    one = app.indexer.rebuild()
    in_parts = app.settings.model_copy(update={"index_part_rows": -(-one.rows // count)})
    parted = Indexer(app.engine, app.files, in_parts).rebuild()
    assert len(parted.parts) == count and {one.state, parted.state} == {"published"}
    return one, parted


def measure(forms: dict[str, tuple[App, Build]], options: argparse.Namespace) -> None:
    report = BenchmarkReport(
        "cluster_actors",
        f"{options.parts} parts of {options.rows:,} vectors, in actors and in one process",
    )
    model = forms[FORMS[0]][0].catalog.model().id
    vectors = generate_vectors(options.queries, 99).astype(np.float32)
    indexes = dict(zip(FORMS, each_opened(forms), strict=True))
    for what, fold in (("plain", False), ("folded", True)):
        queries = [Query(vector=each, model_id=model, k=K, fold=fold) for each in vectors]

        def searches(name: str, queries: list[Query] = queries) -> list[Callable[[], Any]]:
            app, build = forms[name]
            publish(forms, build)
            app.search.open_index()

            def search(query: Query) -> None:
                assert app.search.search(query).plan.build == build.id

            return [lambda query=query: search(query) for query in queries]

        compare(report, f"search, {what}", searches, options.rounds)

    def nominations(name: str) -> list[Callable[[], Any]]:
        index = indexes[name]
        return [lambda row=row: index.nominate_each(row, NOMINEES, K)
                for row in vectors[:, None]]  # fmt: skip

    compare(report, f"{NOMINEES} nominees", nominations, options.rounds)
    report.row(**round_trip(indexes[FORMS[2]], options.rounds * options.queries))
    report.write()


def each_opened(forms: dict[str, tuple[App, Build]]) -> Iterator[Any]:
    """The open index of each form."""
    for app, build in forms.values():
        publish(forms, build)
        app.search.open_index()
        index = app.files.opened(build)
        assert index is not None
        yield index


def publish(forms: dict[str, tuple[App, Build]], build: Build) -> None:
    """Let searches use this build and none of the others."""
    with forms[FORMS[0]][0].engine.begin() as connection:
        connection.execute(
            text("UPDATE index_build SET state = CASE id WHEN :id THEN 'published'"
                 " ELSE 'retired' END"),
            {"id": build.id},
        )  # fmt: skip


def compare(
    report: BenchmarkReport, what: str, calls: Callable[[str], list[Callable[[], Any]]], rounds: int
) -> None:
    """Run the calls of all forms in turn, once without counting, and report."""
    times: dict[str, list[float]] = {name: [] for name in FORMS}
    medians: dict[str, list[float]] = {name: [] for name in FORMS}
    used: dict[str, list[float]] = {name: [] for name in FORMS}
    for number in range(1 + rounds):
        for name in FORMS:
            own, before = list[float](), 0.0
            every = calls(name)
            before = cpu_seconds()
            for call in every:
                began = time.perf_counter()
                call()
                own.append(1000 * (time.perf_counter() - began))
            cpu_ms = 1000 * (cpu_seconds() - before) / len(own)
            if number:
                times[name] += own
                medians[name].append(float(np.median(own)))
                used[name].append(cpu_ms)
    of = {name: Measurement(tuple(each), "ms") for name, each in medians.items()}
    for name in FORMS:
        every_time = Measurement(tuple(times[name]), "ms")
        report.row(
            what=what, by=name, p50_ms=every_time.p50, p99_ms=every_time.at(99),
            processor_ms=Measurement(tuple(used[name]), ""),
            by_parts_in_the_process=ratio(of[name], of[FORMS[1]]),
            by_one_file=ratio(of[name], of[FORMS[0]]),
        )  # fmt: skip


def round_trip(index: Any, calls: int) -> dict[str, Any]:
    """An empty call of the first actor."""
    assert isinstance(index, PartedIndex) and isinstance(index.searcher, parts.RemoteParts)
    connected, times = index.searcher.connected, list[float]()
    for _ in range(calls):
        began = time.perf_counter()
        call = connected.actors.call(connected._handles[0], "is_open")
        assert connected.actors.result(call)
        times.append(1000 * (time.perf_counter() - began))
    trip = Measurement(tuple(times), "ms")
    return {"what": "an empty call", "by": "one actor", "p50_ms": trip.p50, "p99_ms": trip.at(99)}


if __name__ == "__main__":
    main()
