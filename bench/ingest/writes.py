"""Write rates of products, pictures and embeddings, compared with plain COPY BINARY.

    python -m bench.ingest.writes
    python -m bench.ingest.writes --rows 100000

`CatalogService.write` and four COPY statements are measured alternately in one database, first
without pgvector's index and then with it. The COPY data is prepared before the measurement; the
time of the service includes the lookup of stored rows, identity keys and packing. Both write into
the same tables, with all indexes, checks and triggers, and commit equally often.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence

import psycopg

from app.bootstrap import App
from app.catalog import fallback_index
from app.db.engine import database_url
from app.models import backfill
from app.types import Vector
from bench.data.catalogue import catalogue
from bench.data.products_as_copy import CopyWriter, ProductGenerator, picture_ids_of
from bench.harness.side_by_side import BenchmarkReport, measure_alternately, ratio

GOAL = 0.7
"""Minimum write rate relative to plain COPY."""

TRANSACTION_SIZES = (64, 256, 1000)

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
        fallback_index.maintain(app.engine)
        compare_with_copy(report, app, options.write, options.rounds, "present", TRANSACTION_SIZES)
    report.write()


if __name__ == "__main__":
    main()
