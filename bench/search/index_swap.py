"""What a new index costs the searches that are running: p50 and p99 with swaps and without.

    python -m bench.search.index_swap --rows 100000 --swaps 20

Two threads search all the time. In turn, nothing happens for a while, and then a new build of the
same rows is published, opened and taken up. Both halves are of the same run.
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
from bench.data.catalogue import catalogue, drawn

THREADS = 2


class Searcher(threading.Thread):
    """Searches without a pause and notes when each began and how long it took."""

    def __init__(self, app: App, seed: int, stop: threading.Event) -> None:
        super().__init__()
        self._app, self._stop_event = app, stop
        self._vectors = drawn(500, seed)
        self.seen: list[tuple[float, float, int | None]] = []

    def run(self) -> None:
        model = self._app.catalog.model().id
        while not self._stop_event.is_set():
            for vector in self._vectors:
                began = time.perf_counter()
                plan = self._app.search.search(Query(vector=vector, model_id=model)).plan
                assert plan.path == "faiss", plan
                self.seen.append((began, time.perf_counter() - began, plan.build))


def swap(app: App, number: int) -> None:
    """Publish another file of the same rows, as a builder on another host would."""
    with app.engine.begin() as connection:
        newest = index_builds.usable(connection, app.catalog.model().id)[0]
        index = app.files.open(newest)
        index.faiss_index.nprobe = number + 1  # stored in the file, and overruled by every search
        sha256, size = app.files.write(index)
        made = index_builds.begin(connection, newest.model_id)
        index_builds.finish(
            connection, made, "published", snapshot=newest.snapshot, kind=newest.kind,
            parameters=dict(newest.parameters), rows=newest.rows, sha256=sha256, size=size,
        )  # fmt: skip


def figures(seconds: list[float]) -> dict[str, float]:
    found = np.array(seconds) * 1000
    return {
        "searches": float(len(found)),
        "p50_ms": float(np.percentile(found, 50)),
        "p99_ms": float(np.percentile(found, 99)),
        "max_ms": float(found.max()),
    }


def measure(app: App, swaps: int, rest_s: float) -> dict[str, dict[str, float]]:
    stop = threading.Event()
    searchers = [Searcher(app, seed, stop) for seed in range(THREADS)]
    for searcher in searchers:
        searcher.start()
    time.sleep(2 * rest_s)
    spans = []
    for number in range(swaps):
        quiet = time.perf_counter()
        time.sleep(rest_s)
        began = time.perf_counter()
        swap(app, number)
        time.sleep(rest_s)
        spans.append((quiet, began, time.perf_counter()))
    stop.set()
    for searcher in searchers:
        searcher.join()
    seen = [each for searcher in searchers for each in searcher.seen]
    parts: dict[str, list[float]] = {"without a swap": [], "with a swap": []}
    for began, took, _ in seen:
        for quiet, middle, end in spans:
            if quiet <= began < end:
                parts["without a swap" if began < middle else "with a swap"].append(took)
    assert len({build for _, _, build in seen}) > swaps, "every build was taken up"
    return {name: figures(found) for name, found in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--rest", type=float, default=1.0, help="seconds before and after a swap")
    words = parser.parse_args()
    with catalogue(words.rows) as app:
        app.indexer.rebuild()
        found = measure(app, words.swaps, words.rest)
    for name, values in found.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in values.items()))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
