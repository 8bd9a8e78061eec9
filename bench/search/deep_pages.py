"""What a further page costs, next to the first one: processor time of client and server.

    python -m bench.search.deep_pages --rows 100000

The catalogue and the queries are those of `bench.search.query_kinds`. Pages 1, 2, 10 and 40 of the
same searches are asked for in turn, plain and folded, each with the products of the pages before
it as `shown`, and compared within a round.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import replace

from app.bootstrap import App
from app.types import Filters, Query
from bench.data.catalogue import catalogue
from bench.harness.side_by_side import BenchmarkReport, measure_alternately, ratio
from bench.search.query_kinds import WARMUP, kinds, processor_ms

PAGES = (1, 2, 10, 40)
GOAL = 5.0
"""Page 40 should take at most so many times the processor time of the first page."""

KINDS = {"plain": {}, "fold": {"fold": True}}
FILTER = Filters(columns={"colour": ("red", "black")})


def pages_of(app: App, query: Query) -> dict[int, Query]:
    """The queries for the pages of a search."""
    found: dict[int, Query] = {}
    for number in range(1, max(PAGES) + 1):
        if number in PAGES:
            found[number] = query
        if number < max(PAGES):
            query = replace(query, shown=(*query.shown, *app.search.search(query).shown))
    return found


def measure(app: App, rows: int, rounds: int, searches: int, report: BenchmarkReport) -> None:
    """Report each page as a multiple of the first page of its kind."""
    plain = kinds(app, rows, searches)["plain"]
    queries = {f"{name}, page {page}": [] for name in (*KINDS, "filter") for page in PAGES}  # type: dict[str, list[Query]]
    for number in range(searches):
        for name, fields in (*KINDS.items(), ("filter", {"filters": FILTER})):
            for page, query in pages_of(app, replace(plain.make(number), **fields)).items():
                queries[f"{name}, page {page}"].append(query)

    def block(name: str) -> Callable[[], float]:
        def run() -> float:
            before = processor_ms(app)
            for query in queries[name]:
                app.search.search(query)
            return (processor_ms(app) - before) / searches

        return run

    cost = measure_alternately(
        {name: block(name) for name in queries}, rounds, unit="ms", warmup=WARMUP
    )
    for name, figure in cost.items():
        kind, _, page = name.partition(", page ")
        times = ratio(figure, cost[f"{kind}, page 1"])
        report.row(rows=rows, kind=kind, page=int(page), processor=figure, times_page_1=times)
        if page == "40" and kind in KINDS:
            report.goal(f"{kind}, page 40 / page 1 at {rows:,}", times, GOAL, at_least=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--searches", type=int, default=10, help="searches in each round")
    options = parser.parse_args()
    report = BenchmarkReport("deep_pages", f"Further pages, {os.cpu_count()} cores")
    for rows in options.rows or [100_000]:
        with catalogue(rows, titled=True) as app:
            app.indexer.rebuild()
            measure(app, rows, options.rounds, options.searches, report)
    report.write()


if __name__ == "__main__":
    main()
