"""Searches through the service, checked against numpy on an unchanging table."""

from __future__ import annotations

import threading
from collections import Counter
from types import TracebackType

import numpy as np

from app.bootstrap import App
from app.db.engine import snapshot
from app.db.queries.nearest import Candidates
from app.types import Hit, Plan, Query, SearchResult, Vector
from support.colours import photo
from support.servers import wait_until
from support.shop import vectors
from support.snapshots import Rows, differences, read

SEEDS = (1000, 2000, 3000)
K = 10


def ask(app: App, seed: int = 1000, k: int = 10, **more: object) -> SearchResult:
    """Search with the photo of a seed."""
    return app.search.search(Query(picture=photo(seed), k=k, **more))  # type: ignore[arg-type]


def exact_plan(app: App, k: int = K) -> Plan:
    """Search for a few photos and assert that the results are exact; returns the last plan."""
    rows = read_table(app)
    for seed in SEEDS:
        result = app.search.search(Query(picture=photo(seed), k=k))
        assert result_errors(rows, rounded_vector(app, seed), result, k) == [], result.plan
    return result.plan


def best_sku(app: App, seed: int) -> str:
    """The sku of the product most similar to a photo."""
    return app.search.search(Query(picture=photo(seed), k=1)).matches[0].product.sku


def read_table(app: App) -> Rows:
    with snapshot(app.engine) as connection:
        return read(connection)


def rounded_vector(app: App, seed: int) -> Vector:
    """A photo's vector, rounded to float16 as in every search path."""
    return vectors(app, [seed])[0].astype(np.float16).astype(np.float32)


def result_errors(rows: Rows, query: Vector, result: SearchResult, k: int) -> list[str]:
    """The differences of a result from the exact one of these rows; empty if there are none."""
    hits = tuple(Hit(m.product_id, m.picture_id, 1 - m.similarity) for m in result.matches)
    return differences(rows, query, Candidates(hits, None), k)


class SearchThreads:
    """Threads that search an unchanging table inside the `with` block."""

    def __init__(self, app: App, threads: int = 3) -> None:
        self.paths: Counter[str] = Counter()
        self.errors: list[Exception] = []
        self.wrong: list[str] = []
        self._app, self._rows = app, read_table(app)
        self._queries = {seed: rounded_vector(app, seed) for seed in SEEDS}
        self._answers = [0] * threads
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(threads)]

    def __enter__(self) -> SearchThreads:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def goes_on(self, more: int = 3, seconds: float = 300) -> None:
        """Wait until each thread has received `more` further results."""
        goal = [answers + more for answers in self._answers]
        wait_until(
            lambda: all(has >= want for has, want in zip(self._answers, goal, strict=True)),
            f"searches did not go on: {self.errors[-1:]}",
            seconds,
        )

    def _work(self, number: int) -> None:
        while not self._over.is_set():
            seed = SEEDS[number % len(SEEDS)]
            try:
                result = self._app.search.search(Query(picture=photo(seed), k=K))
            except Exception as exc:  # the test asserts which errors are allowed
                self.errors.append(exc)
                self._over.wait(0.02)
                continue
            self.wrong += result_errors(self._rows, self._queries[seed], result, K)
            self.paths[result.plan.path] += 1
            self._answers[number] += 1
