"""Effect of switching to a new index on concurrent searches: p50 and p99 with and without switches.

    python -m bench.search.index_swap --rows 100000 --swaps 20

Two threads search continuously. Idle intervals alternate with intervals in which a new build of the
same rows is published, opened and used. Both are measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import threading
import time

import numpy as np

from app.bootstrap import App
from app.db.queries import index_builds
from app.types import Query
from bench.data.catalogue import catalogue
from bench.data.vectors import generate_vectors

THREADS = 2


class SearchThread(threading.Thread):
    """Searches without a pause; records start, duration (seconds) and build of each search."""

    def __init__(self, app: App, seed: int, stop: threading.Event) -> None:
        super().__init__()
        self._app, self._stop_event = app, stop
        self._vectors = generate_vectors(500, seed)
        self.searches: list[tuple[float, float, int | None]] = []

    def run(self) -> None:
        model = self._app.catalog.model().id
        while not self._stop_event.is_set():
            for vector in self._vectors:
                began = time.perf_counter()
                plan = self._app.search.search(Query(vector=vector, model_id=model)).plan
                assert plan.path == "faiss", plan
                self.searches.append((began, time.perf_counter() - began, plan.build))


def publish_build(app: App, number: int) -> None:
    """Publish a different file with the same rows, as a builder on another host would."""
    with app.engine.begin() as connection:
        newest = index_builds.usable(connection, app.catalog.model().id)[0]
        index = app.files.open(newest)
        index.faiss_index.nprobe = number + 1  # changes the file; every search overrides it
        sha256, size = app.files.write(index)
        build_id = index_builds.begin(connection, newest.model_id)
        index_builds.finish(
            connection, build_id, "published", snapshot=newest.snapshot, kind=newest.kind,
            parameters=dict(newest.parameters), rows=newest.rows, sha256=sha256, size=size,
        )  # fmt: skip


def latency_figures(seconds: list[float]) -> dict[str, float]:
    """Count, p50, p99 and maximum in milliseconds."""
    ms = np.array(seconds) * 1000
    return {
        "searches": float(len(ms)),
        "p50_ms": float(np.percentile(ms, 50)),
        "p99_ms": float(np.percentile(ms, 99)),
        "max_ms": float(ms.max()),
    }


def measure(app: App, swaps: int, rest_s: float) -> dict[str, dict[str, float]]:
    """Latencies in intervals of `rest_s` seconds without, and `rest_s` or longer with, a switch."""
    stop = threading.Event()
    searchers = [SearchThread(app, seed, stop) for seed in range(THREADS)]
    for searcher in searchers:
        searcher.start()
    time.sleep(2 * rest_s)
    intervals = []
    for number in range(swaps):
        idle_began = time.perf_counter()
        time.sleep(rest_s)
        switch_began = time.perf_counter()
        publish_build(app, number)
        time.sleep(rest_s)
        intervals.append((idle_began, switch_began, time.perf_counter()))
    stop.set()
    for searcher in searchers:
        searcher.join()
    searches = [search for searcher in searchers for search in searcher.searches]
    parts: dict[str, list[float]] = {"without a switch": [], "with a switch": []}
    for began, seconds, _ in searches:
        for idle_began, switch_began, end in intervals:
            if idle_began <= began < end:
                part = "without a switch" if began < switch_began else "with a switch"
                parts[part].append(seconds)
    assert len({build for _, _, build in searches}) > swaps, "a build was not used"
    return {name: latency_figures(values) for name, values in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="more than 5000")
    parser.add_argument("--swaps", type=int, default=20, help="number of switches")
    parser.add_argument("--rest", type=float, default=1.0, help="seconds before and after a switch")
    options = parser.parse_args()
    with catalogue(options.rows) as app:
        app.indexer.rebuild()
        results = measure(app, options.swaps, options.rest)
    for name, values in results.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in values.items()))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
