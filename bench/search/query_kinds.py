"""What every kind of query costs, next to the plain one: processor time of client and server.

    python -m bench.search.query_kinds --rows 100000 --rows 1000000

The catalogue has titles as shops write them and one duplicate in ten products; the index is the
build of that catalogue, compressed. Vectors are given, so that nothing is encoded. The kinds are
run in turn, a block of queries each, and compared within a round. The figures are processor time
because it is hardly affected by what else the machine does; the elapsed time is printed beside it.

Another process on the same core makes processor time longer too. So a few queries of each kind are
then repeated, in random order, and the least time of each query counts: two runs of that differ by
few percent, even where the machine has much else to do.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sqlalchemy import text

from app.bootstrap import App
from app.types import Filters, Query, SearchResult
from app.vectors import round_to_float16
from bench.data.catalogue import catalogue
from bench.data.titled_products import is_duplicate
from bench.data.vectors import generate_vectors
from bench.harness.side_by_side import BenchmarkReport, Measurement, measure_alternately, ratio

K = 12
"""Results of a page of the web page, which also folds duplicates."""

GOALS = {
    "fold": 1.5, "by sku": 1.25, "by sku, fold": 1.6, "minimum similarity": 1.1,
    "near-duplicates": 1.7, "fold, second page": 1.7, "filter": 2.0,
}  # fmt: skip
"""Maximum processor time of a kind as a multiple of the plain query's."""

WARMUP = 2
"""Rounds that are discarded."""

REPEATED = 30
"""Queries of each kind that are repeated."""

CLIENT_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"


@dataclass
class Queries:
    """One kind of query, for the n-th vector of the benchmark."""

    app: App
    make: Callable[[int], Query]
    next: int = 0

    def run(self, count: int) -> list[SearchResult]:
        """Search with the next `count` queries."""
        results = [self.app.search.search(self.make(self.next + n)) for n in range(count)]
        self.next += count
        return results


def servers(app: App) -> list[Path]:
    """Files with the processor time of each server process of this database's clients."""
    with app.engine.connect() as connection:
        pids = connection.execute(text(CLIENT_BACKENDS)).scalars()
        return [Path(f"/proc/{pid}/schedstat") for pid in pids]


def processor_ms(app: App, processes: Iterable[Path] | None = None) -> float:
    """Milliseconds of processor time that this process and its connections' servers have used;
    of the servers these `processes`, None: all that there are now."""
    nanoseconds = 0
    for process in servers(app) if processes is None else processes:
        try:
            nanoseconds += int(process.read_text().split()[0])
        except OSError:
            continue  # ended meanwhile
    return time.process_time() * 1000 + nanoseconds / 1e6


def kinds(app: App, rows: int, count: int) -> dict[str, Queries]:
    """The kinds of queries, each with `count` different vectors near the catalogue's."""
    random = np.random.default_rng(5)
    stored = generate_vectors(min(rows, 10_000), 1)
    chosen = [int(row) for row in random.permutation(len(stored)) if not is_duplicate(row)][:count]
    steps = random.standard_normal((len(chosen), stored.shape[1])).astype(np.float32)
    vectors = stored[chosen] + steps * np.float32(0.3 / stored.shape[1] ** 0.5)
    vectors = round_to_float16(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    model = app.catalog.model()

    def plain(number: int) -> Query:
        return Query(vector=vectors[number % len(vectors)], model_id=model.id, k=K)

    def by_sku(number: int) -> Query:
        return Query(sku=f"S{chosen[number % len(chosen)] + 1}", k=K)

    shown: dict[int, tuple[str, ...]] = {}

    def second_page(number: int) -> Query:
        return replace(plain(number), fold=True, shown=shown[number % len(vectors)])

    for number in range(len(vectors)):
        first = app.search.search(replace(plain(number), fold=True))
        shown[number] = tuple(
            sku for match in first.matches
            for sku in (match.product.sku, *(fold.product.sku for fold in match.folded))
        )  # fmt: skip
    makers: dict[str, Callable[[int], Query]] = {
        "plain": plain,
        "fold": lambda n: replace(plain(n), fold=True),
        "fold, second page": second_page,
        "by sku": by_sku,
        "by sku, fold": lambda n: replace(by_sku(n), fold=True),
        "minimum similarity": lambda n: replace(plain(n), min_similarity=0.1),
        "near-duplicates": lambda n: replace(plain(n), near_query=0.01, near_match=0.05),
        "filter": lambda n: replace(
            plain(n), filters=Filters(columns={"colour": ("red", "black")})
        ),
        "filter, fold": lambda n: replace(
            plain(n), fold=True, filters=Filters(columns={"colour": ("red", "black")})
        ),
    }
    return {name: Queries(app, make) for name, make in makers.items()}


def measure(app: App, rows: int, rounds: int, block: int, report: BenchmarkReport) -> None:
    """Measure all kinds in turn and report each as a multiple of the plain one."""
    every = kinds(app, rows, (rounds + WARMUP) * block)
    elapsed: dict[str, list[float]] = {name: [] for name in every}
    short: dict[str, int] = dict.fromkeys(every, 0)

    def block_of(name: str) -> Callable[[], float]:
        def run() -> float:
            before, began = processor_ms(app), time.perf_counter()
            results = every[name].run(block)
            elapsed[name].append((time.perf_counter() - began) * 1000 / block)
            short[name] += sum(len(result.matches) < K for result in results)
            return (processor_ms(app) - before) / block

        return run

    cost = measure_alternately(
        {name: block_of(name) for name in every}, rounds, unit="ms", warmup=WARMUP
    )
    for name in every:
        relative = ratio(cost[name], cost["plain"])
        report.row(
            rows=rows, kind=name, processor=cost[name], times_plain=relative,
            elapsed=Measurement(tuple(elapsed[name][WARMUP:]), "ms"), short_pages=short[name],
        )  # fmt: skip
    least = least_ms(app, every, max(rounds, 1) * 2)
    for name in every:
        relative = ratio(least[name], least["plain"])
        report.row(rows=rows, kind=name, least_of_each_query=least[name], times_plain=relative)
        if name in GOALS:
            report.goal(f"{name} / plain at {rows:,}", relative, GOALS[name], at_least=False)


def least_ms(app: App, every: Mapping[str, Queries], repetitions: int) -> dict[str, Measurement]:
    """The mean of the least processor times of each kind's first queries, repeated so often."""
    processes, turn = servers(app), random.Random(7)
    least = {name: [float("inf")] * REPEATED for name in every}
    for _ in range(repetitions):
        for number in range(REPEATED):
            for name in turn.sample(list(every), len(every)):
                query, before = every[name].make(number), processor_ms(app, processes)
                app.search.search(query)
                spent = processor_ms(app, processes) - before
                least[name][number] = min(least[name][number], spent)
    return {name: Measurement((sum(own) / REPEATED,), "ms") for name, own in least.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--block", type=int, default=40, help="queries of a kind per round")
    options = parser.parse_args()
    report = BenchmarkReport("query_kinds", f"Kinds of queries, {os.cpu_count()} cores")
    for rows in options.rows or [100_000]:
        with catalogue(rows, titled=True) as app:
            app.indexer.rebuild()
            measure(app, rows, options.rounds, options.block, report)
    report.write()


if __name__ == "__main__":
    main()
