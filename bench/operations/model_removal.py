"""Effect of dropping a model on concurrent searches, and the cost of the lock that protects them.

    python -m bench.operations.model_removal --rows 20000 --rounds 15

Three threads search continuously, two of them with searches of several statements. Intervals
without and with the removal of a model and its embeddings alternate. Afterwards, without other
load, a search of several statements is measured with and without the lock on attached partitions.
"""

from __future__ import annotations

import argparse
import threading
import time
from unittest.mock import patch

import numpy as np
from sqlalchemy import text

from app.bootstrap import App
from app.db.queries import models
from app.types import Query
from bench.data.catalogue import catalogue
from bench.data.vectors import DIM, generate_vectors
from bench.harness.side_by_side import BenchmarkReport, Measurement, measure_alternately, ratio

INTERVAL_S = 1.0
"""Duration of an interval, with or without a removal."""

SEARCHES_PER_ROUND = 20
"""A round of the second part measures the median over this number of searches."""


class SearchThread(threading.Thread):
    """Searches without a pause; records start and duration (ms) of each search, and errors."""

    def __init__(self, app: App, stop: threading.Event, *, by_sku: bool) -> None:
        super().__init__()
        self._app, self._stop_event, self._by_sku = app, stop, by_sku
        self.searches: list[tuple[float, float]] = []
        self.failed: list[str] = []

    def run(self) -> None:
        model = self._app.catalog.model().id
        queries = [Query(vector=vector, model_id=model) for vector in generate_vectors(200, 7)]
        if self._by_sku:
            queries = [Query(sku=f"S{number}") for number in range(1, 200)]
        while not self._stop_event.is_set():
            for query in queries:
                began = time.perf_counter()
                try:
                    count = len(self._app.search.search(query).matches)
                    self.failed += [] if count == query.k else [f"{count} matches"]
                except Exception as exc:
                    self.failed.append(repr(exc))
                self.searches.append((began, (time.perf_counter() - began) * 1000))


def add_model(app: App) -> str:
    """Add a model with a copy of all embeddings of the active one; returns its name."""
    name = f"copy-{time.monotonic_ns()}"
    with app.engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        model = models.register(connection, name, "1", DIM, name)
        connection.execute(
            text(
                "INSERT INTO embedding (model_id, picture_id, vec)"
                " SELECT :model, picture_id, vec FROM embedding WHERE model_id = :active"
            ),
            {"model": model.id, "active": app.catalog.model().id},
        )
    return name


def measure_during_removal(app: App, rounds: int, report: BenchmarkReport) -> None:
    """Latency of concurrent searches in intervals with and without a removal."""
    stop = threading.Event()
    threads = [SearchThread(app, stop, by_sku=by_sku) for by_sku in (False, True, True)]
    for thread in threads:
        thread.start()
    removals: list[float] = []
    medians: dict[str, list[float]] = {"quiet": [], "drop": []}

    def slowest(name: str, began: float) -> float:
        time.sleep(max(0.0, began + INTERVAL_S - time.perf_counter()))
        latencies = [ms for thread in threads for at, ms in list(thread.searches) if at >= began]
        medians[name].append(float(np.median(latencies)))
        return max(latencies)

    def quiet() -> float:
        return slowest("quiet", time.perf_counter())

    def drop() -> float:
        name, began = add_model(app), time.perf_counter()
        app.lifecycle.drop(name)
        removals.append(time.perf_counter() - began)
        return slowest("drop", began)

    slowest_ms = measure_alternately({"quiet": quiet, "drop": drop}, rounds, unit="ms")
    stop.set()
    for thread in threads:
        thread.join()
    for name, what in {"quiet": "no removal", "drop": "a model is dropped"}.items():
        median = Measurement(tuple(medians[name][1:]), "ms")
        worst = Measurement((max(slowest_ms[name].values),), "ms")
        report.row(condition=what, search=median, slowest=slowest_ms[name], slowest_of_all=worst)
    report.row(condition="duration of a removal", search=Measurement(tuple(removals[1:]), "s"))
    count = sum(len(thread.searches) for thread in threads)
    failed = [each for thread in threads for each in thread.failed]
    report.note(f"{count:,} searches during {len(removals)} removals, {len(failed)} failed.")
    report.goal("failed searches", float(len(failed)), 0, at_least=False)


def measure_lock_cost(app: App, rounds: int, report: BenchmarkReport) -> None:
    """Latency of one search at a time, with and without the lock on attached partitions."""

    def with_lock() -> float:
        latencies = []
        for number in range(1, SEARCHES_PER_ROUND + 1):
            began = time.perf_counter()
            app.search.search(Query(sku=f"S{number}"))
            latencies.append((time.perf_counter() - began) * 1000)
        return float(np.median(latencies))

    def without_lock() -> float:
        with patch("app.db.queries.partitions.lock_attached"):
            return with_lock()

    latencies = measure_alternately(
        {"locked": with_lock, "not locked": without_lock}, 2 * rounds, unit="ms"
    )
    report.row(condition="no other load, with the lock", search=latencies["locked"])
    report.row(condition="no other load, without it", search=latencies["not locked"])
    report.row(condition="ratio", search=ratio(latencies["locked"], latencies["not locked"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    report = BenchmarkReport(
        "model_removal", f"Searches while models of {options.rows:,} embeddings are dropped"
    )
    with catalogue(options.rows, own=True) as app:
        app.indexer.rebuild()
        measure_during_removal(app, options.rounds, report)
        measure_lock_cost(app, options.rounds, report)
    report.write()


if __name__ == "__main__":
    main()
