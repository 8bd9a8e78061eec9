"""What dropping a model costs the searches that are running, and what they pay to be safe from it.

    python -m bench.operations.model_removal --rows 20000 --rounds 15

Three threads search all the time, two of them in several statements. In turn, nothing happens for a
while, and then a model with its embeddings is dropped. After that, alone, a search in several
statements is timed with the lock that keeps partitions in place, and without it.
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
from bench.data.catalogue import DIM, catalogue, drawn
from bench.harness.side_by_side import Report, Sample, in_turn, ratio

LASTS_S = 1.0
"""How long a while is, with a drop or without one."""
AT_ONCE = 20
"""Searches that one round of the second part takes the median of."""


class Searcher(threading.Thread):
    """Searches without a pause; notes when each began and how many ms it took, and what failed."""

    def __init__(self, app: App, stop: threading.Event, *, by_sku: bool) -> None:
        super().__init__()
        self._app, self._stop_event, self._by_sku = app, stop, by_sku
        self.seen: list[tuple[float, float]] = []
        self.failed: list[str] = []

    def run(self) -> None:
        model = self._app.catalog.model().id
        queries = [Query(vector=vector, model_id=model) for vector in drawn(200, 7)]
        if self._by_sku:
            queries = [Query(sku=f"S{number}") for number in range(1, 200)]
        while not self._stop_event.is_set():
            for query in queries:
                began = time.perf_counter()
                try:
                    found = len(self._app.search.search(query).matches)
                    self.failed += [] if found == query.k else [f"{found} came"]
                except Exception as exc:
                    self.failed.append(repr(exc))
                self.seen.append((began, (time.perf_counter() - began) * 1000))


def added(app: App) -> str:
    """A model that has all the embeddings of the active one."""
    name = f"beside-{time.monotonic_ns()}"
    with app.engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        made = models.register(connection, name, "1", DIM, name)
        connection.execute(text(f"DROP INDEX embedding_m{made.id}_vec_idx"))
        connection.execute(
            text(
                "INSERT INTO embedding (model_id, picture_id, vec)"
                " SELECT :made, picture_id, vec FROM embedding WHERE model_id = :active"
            ),
            {"made": made.id, "active": app.catalog.model().id},
        )
    return name


def beside_drops(app: App, rounds: int, report: Report) -> None:
    stop = threading.Event()
    threads = [Searcher(app, stop, by_sku=by_sku) for by_sku in (False, True, True)]
    for thread in threads:
        thread.start()
    drops: list[float] = []
    medians: dict[str, list[float]] = {"quiet": [], "drop": []}

    def slowest(name: str, began: float) -> float:
        time.sleep(max(0.0, began + LASTS_S - time.perf_counter()))
        took = [ms for thread in threads for at, ms in list(thread.seen) if at >= began]
        medians[name].append(float(np.median(took)))
        return max(took)

    def quiet() -> float:
        return slowest("quiet", time.perf_counter())

    def drop() -> float:
        name, began = added(app), time.perf_counter()
        app.lifecycle.drop(name)
        drops.append(time.perf_counter() - began)
        return slowest("drop", began)

    found = in_turn({"quiet": quiet, "drop": drop}, rounds, unit="ms")
    stop.set()
    for thread in threads:
        thread.join()
    for name, what in {"quiet": "nothing happens", "drop": "a model is dropped"}.items():
        usual = Sample(tuple(medians[name][1:]), "ms")
        worst = Sample((max(found[name].values),), "ms")
        report.row(meanwhile=what, search=usual, slowest=found[name], slowest_of_all=worst)
    report.row(meanwhile="a drop takes", search=Sample(tuple(drops[1:]), "s"))
    searched = sum(len(thread.seen) for thread in threads)
    failed = [each for thread in threads for each in thread.failed]
    report.note(f"{searched:,} searches beside {len(drops)} drops, {len(failed)} failed.")
    report.goal("searches that failed", float(len(failed)), 0, at_least=False)


def price_of_the_lock(app: App, rounds: int, report: Report) -> None:
    def searched() -> float:
        took = []
        for number in range(1, AT_ONCE + 1):
            began = time.perf_counter()
            app.search.search(Query(sku=f"S{number}"))
            took.append((time.perf_counter() - began) * 1000)
        return float(np.median(took))

    def unheld() -> float:
        with patch("app.db.queries.partitions.lock_attached"):
            return searched()

    found = in_turn({"held": searched, "not held": unheld}, 2 * rounds, unit="ms")
    report.row(meanwhile="alone, partitions held", search=found["held"])
    report.row(meanwhile="alone, not held", search=found["not held"])
    report.row(meanwhile="ratio", search=ratio(found["held"], found["not held"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=15)
    words = parser.parse_args()
    report = Report("drop", f"Searches while models of {words.rows:,} embeddings are dropped")
    with catalogue(words.rows, own=True) as app:
        app.indexer.rebuild()
        beside_drops(app, words.rounds, report)
        price_of_the_lock(app, words.rounds, report)
    report.write()


if __name__ == "__main__":
    main()
