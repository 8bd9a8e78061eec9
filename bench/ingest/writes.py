"""Write rates of products, pictures and embeddings, compared with plain COPY BINARY.

    python -m bench.ingest.writes
    python -m bench.ingest.writes --rows 100000

`CatalogService.write` and four COPY statements are measured alternately in one database, first
without pgvector's index and then with it. The COPY data is prepared before the measurement; the
time of the service includes the lookup of stored rows, identity keys and packing. Both write into
the same tables, with all indexes, checks and triggers, and commit equally often.

Then embeddings are added to partitions of several sizes: row by row into pgvector's index, and
without the index, which is then rebuilt.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import psycopg
from sqlalchemy import Connection

from app.bootstrap import App
from app.catalog.bulk_load import BUILD_COST
from app.db import copy, locks
from app.db.engine import database_url
from app.db.pipeline import open_pipeline
from app.db.queries import hnsw_index, models
from app.models import backfill
from app.types import Model, Vector
from bench.data.catalogue import DIM, catalogue, generate_vectors
from bench.data.products_as_copy import CopyWriter, ProductGenerator, picture_ids_of
from bench.harness.side_by_side import BenchmarkReport, measure_alternately, ratio

GOAL = 0.7
"""Minimum write rate relative to plain COPY."""

TRANSACTION_SIZES = (64, 256, 1000)
EMBEDDINGS_PER_TRANSACTION = 128
GROWTH_STEPS = ((0, 5000), (5000, 2000), (5000, 5000))
"""Pairs of embeddings that the partition already has, and embeddings to add."""

Alternatives = Mapping[str, Callable[[], float]]


def product_writers(app: App, writer: CopyWriter, size: int, rows: int) -> Alternatives:
    """Two ways to write `rows` new products, `size` per transaction; each returns products/s."""
    generator, model = ProductGenerator.shared(), app.catalog.model()
    batches = max(1, rows // size)

    def lookalike() -> float:
        new = [generator.batch(size) for _ in range(batches)]
        return _rate(batches * size, lambda: [app.catalog.write(batch, model) for batch in new])

    def plain_copy() -> float:
        new = [writer.pack(generator.batch(size)) for _ in range(batches)]
        return _rate(batches * size, lambda: [writer.write(payloads) for payloads in new])

    return {"plain_copy": plain_copy, "lookalike": lookalike}


def embedding_writers(app: App, writer: CopyWriter, size: int, rows: int) -> Alternatives:
    """Two ways to write embeddings of the active model for stored pictures; each returns rows/s."""
    generator, model = ProductGenerator.shared(), app.catalog.model()
    batches = max(1, rows // size)

    def store_pictures() -> list[tuple[bytes, dict[int, Vector]]]:
        new = []
        for batch in (generator.batch(size) for _ in range(batches)):
            payloads = writer.pack(batch)
            writer.copy("picture", payloads["picture"])
            ids = picture_ids_of(payloads["embedding"], model)
            new.append((payloads["embedding"], dict(zip(ids, batch.vectors.values(), strict=True))))
        writer.commit()
        return new

    def copy_embeddings(payload: bytes) -> None:
        writer.copy("embedding", payload)
        writer.commit()

    def plain_copy() -> float:
        new = store_pictures()
        return _rate(batches * size, lambda: [copy_embeddings(payload) for payload, _ in new])

    def lookalike() -> float:
        new = store_pictures()
        return _rate(
            batches * size,
            lambda: [backfill.store(app.engine, model, vectors) for _, vectors in new],
        )

    return {"plain_copy": plain_copy, "lookalike": lookalike}


def compare_with_copy(
    report: BenchmarkReport, app: App, rows: int, rounds: int, index: str, sizes: Sequence[int]
) -> None:
    """Compare both kinds of writes for each transaction size; `index` is "absent" or "present"."""
    with psycopg.connect(database_url(app.settings)) as connection:
        writer = CopyWriter(connection, app.catalog.model())
        for what, alternatives in (
            ("products", product_writers),
            ("embeddings", embedding_writers),
        ):
            for size in sizes:
                rates = measure_alternately(
                    alternatives(app, writer, size, rows), rounds, unit="/s"
                )
                share = ratio(rates["lookalike"], rates["plain_copy"])
                report.row(kind=what, pgvector_index=index, per_transaction=size, **rates,
                           ratio=share)  # fmt: skip
                report.goal(
                    f"{what}, {size} per transaction, pgvector's index {index}", share, GOAL
                )


def _rate(rows: int, write: Callable[[], object]) -> float:
    began = time.perf_counter()
    write()
    return rows / (time.perf_counter() - began)


def measure_hnsw_growth(report: BenchmarkReport, app: App) -> None:
    """Adding to pgvector's index, compared with loading without the index and rebuilding it."""
    for before, added in GROWTH_STEPS:
        seconds = {
            method: _seconds_to_add(
                app, f"{method} {before} {added}", before, added, rebuild=method == "rebuild"
            )
            for method in ("insert", "rebuild")
        }
        faster = min(seconds, key=lambda method: seconds[method])
        share = (seconds["rebuild"] / (before + added)) / (seconds["insert"] / added)
        report.row(existing=before, added=added, insert_into_index_s=seconds["insert"],
                   load_then_rebuild_s=seconds["rebuild"], faster=faster,
                   time_per_row_rebuild_by_insert=share)  # fmt: skip
    report.note(f"The bulk load assumes {BUILD_COST} for the last column.")


def _seconds_to_add(app: App, name: str, before: int, added: int, *, rebuild: bool) -> float:
    """Seconds to add embeddings to a new partition with an index over `before` rows."""
    with app.engine.begin() as connection:
        model = models.register(connection, name, "1", DIM, name)
        _disable_statement_timeout(connection)
        hnsw_index.drop(connection, model.id)
        _insert_embeddings(connection, model, 0, before)
    _create_hnsw(app, model)
    began = time.perf_counter()
    if rebuild:
        with app.engine.begin() as connection:
            hnsw_index.drop(connection, model.id)
    for at in range(before, before + added, EMBEDDINGS_PER_TRANSACTION):
        with app.engine.begin() as connection:
            with open_pipeline(connection) as pipeline:
                locks.begin_write(pipeline)
            _insert_embeddings(
                connection, model, at, min(EMBEDDINGS_PER_TRANSACTION, before + added - at)
            )
    if rebuild:
        _create_hnsw(app, model)
    return time.perf_counter() - began


def _insert_embeddings(connection: Connection, model: Model, at: int, rows: int) -> None:
    """Insert embeddings of `rows` pictures after the first `at`."""
    if rows:
        ids = np.arange(at + 1, at + 1 + rows, dtype=np.int64)
        copy.insert_rows(connection, copy.make_rows(model, ids, generate_vectors(rows, at + 1)))


def _create_hnsw(app: App, model: Model) -> None:
    engine = app.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        hnsw_index.create(connection, model)


def _disable_statement_timeout(connection: Connection) -> None:
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rows", type=int, default=10_000, help="products in the catalogue before, at least 10000"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", type=int, default=4000, help="rows written per round")
    options = parser.parse_args()
    report = BenchmarkReport("writes", "Writing, compared with plain COPY BINARY of the same rows")
    with catalogue(options.rows, own=True) as app:
        compare_with_copy(report, app, options.write, options.rounds, "absent", TRANSACTION_SIZES)
        measure_hnsw_growth(report, app)
        _create_hnsw(app, app.catalog.model())
        # With the index only about 400 rows/s are written, hence fewer rows.
        compare_with_copy(
            report, app, min(options.write, 256), options.rounds, "present", TRANSACTION_SIZES[:2]
        )
    report.write()


if __name__ == "__main__":
    main()
