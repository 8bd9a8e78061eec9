"""What pgvector's index costs the write of a product, and what a search by it costs.

    python -m bench.ingest.index_cost [--rows 100000] [--no-graph]

Products are written in transactions of 64 into one catalogue, first without an index, then with
pgvector's index as the service keeps it, and with an HNSW index of pgvector's default parameters in
its place. Times are processor time of this process and of the server's.
"""

from __future__ import annotations

import argparse
from functools import partial

from sqlalchemy import text

from app.bootstrap import App
from app.catalog import fallback_index
from app.db.engine import snapshot
from app.db.queries import nearest, pgvector_index
from app.db.queries.pgvector_index import MeasuredIndex
from bench.data.catalogue import catalogue
from bench.data.products_as_copy import ProductGenerator
from bench.data.vectors import generate_vectors
from bench.harness.side_by_side import BenchmarkReport, Measurement, ratio
from bench.search.query_kinds import processor_ms

BATCH, BATCHES, WARMUP = 64, 12, 2
GOAL = 0.25
"""Largest cost of a write, as a share of that with HNSW."""


def write_cost(app: App) -> Measurement:
    """Processor time a product of a transaction of 64, after WARMUP transactions."""
    model, costs = app.catalog.model(), []
    for _ in range(WARMUP + BATCHES):
        batch = ProductGenerator.shared().batch(BATCH)
        before = processor_ms(app)
        app.catalog.write(batch, model)
        costs.append((processor_ms(app) - before) / BATCH)
    return Measurement(tuple(costs[WARMUP:]), "ms")


def search_cost(app: App, index: MeasuredIndex | None) -> Measurement:
    """Processor time of a search for 12 products by the index, or by comparing all."""
    model, costs = app.catalog.model(), []
    search = (
        partial(nearest.approximate, index=index, n=112) if index else partial(nearest.exact, n=28)
    )
    for vector in generate_vectors(40, seed=99):
        before = processor_ms(app)
        with snapshot(app.engine) as connection:
            search(connection, model=model, query=vector, k=12, excluded=())
        costs.append(processor_ms(app) - before)
    return Measurement(tuple(costs[5:]), "ms")


def replace_by_graph(app: App, index: MeasuredIndex) -> None:
    """Put an HNSW index in the place of the service's."""
    with app.engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL maintenance_work_mem = '2GB'"))
        connection.execute(text(f"DROP INDEX {pgvector_index.index_name(1, index.slot)}"))
        connection.execute(
            text("CREATE INDEX ON embedding_m1 USING hnsw ((vec::halfvec(512)) halfvec_cosine_ops)")
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--no-graph", action="store_true", help="leave HNSW out")
    options = parser.parse_args()
    report = BenchmarkReport("index_cost", "What pgvector's index costs a write")
    with catalogue(options.rows, own=True) as app:
        report.row(index="none", write=write_cost(app), search=search_cost(app, None))
        fallback_index.maintain(app.engine)
        with app.engine.connect() as connection:
            index = pgvector_index.measured(connection, 1)
        assert index is not None
        cost = write_cost(app)
        report.row(index=f"{index.lists} lists, {index.probes} probed", write=cost,
                   search=search_cost(app, index), recall_at_10=index.recall_at_10)  # fmt: skip
        if not options.no_graph:
            replace_by_graph(app, index)
            graph = write_cost(app)
            report.row(index="HNSW 16/64", write=graph)
            report.goal("a write, relative to HNSW", ratio(cost, graph), GOAL, at_least=False)
    report.write()


if __name__ == "__main__":
    main()
