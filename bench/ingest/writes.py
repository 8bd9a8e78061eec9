"""How fast products, pictures and embeddings are written, beside bare COPY BINARY of the same rows.

    python -m bench.ingest.writes
    python -m bench.ingest.writes --rows 100000

`CatalogService.write` and four COPY statements take turns in one database, once without pgvector's
index and once with it. What COPY sends is made before its clock starts; the service looks for what
is stored already, makes identity keys and packs rows while its clock runs. Both write into the same
tables, with all indexes, checks and triggers, and commit as often.

Then embeddings are added to partitions of another size each: row by row into pgvector's index, and
without it, after which the index is made anew.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import psycopg
from sqlalchemy import Connection

from app.bootstrap import App
from app.catalog.bulk_load import BUILT
from app.db import copy, locks
from app.db.engine import database_url
from app.db.pipeline import open_pipeline
from app.db.queries import hnsw_index, models
from app.models import backfill
from app.types import Model, Vector
from bench.data.catalogue import DIM, catalogue, drawn
from bench.data.products_as_copy import Bare, Drawn, copied_ids
from bench.harness.side_by_side import Report, in_turn, ratio

GOAL = 0.7
BATCHES = (64, 256, 1000)
EMBEDDED_AT_ONCE = 128
GROWN = ((0, 5000), (5000, 2000), (5000, 5000))
"""Embeddings that are there, and embeddings that are added."""

Ways = Mapping[str, Callable[[], float]]


def products(app: App, bare: Bare, size: int, rows: int) -> Ways:
    """Ways to write `rows` new products, `size` a transaction; each returns products a second."""
    made, model = Drawn.shared(), app.catalog.model()
    batches = max(1, rows // size)

    def ours() -> float:
        new = [made.batch(size) for _ in range(batches)]
        return _rate(batches * size, lambda: [app.catalog.write(each, model) for each in new])

    def theirs() -> float:
        new = [bare.packed(made.batch(size)) for _ in range(batches)]
        return _rate(batches * size, lambda: [bare.write(each) for each in new])

    return {"bare": theirs, "ours": ours}


def embeddings(app: App, bare: Bare, size: int, rows: int) -> Ways:
    """The same for the embeddings of pictures that are stored, under the active model."""
    made, model = Drawn.shared(), app.catalog.model()
    batches = max(1, rows // size)

    def stored() -> list[tuple[bytes, dict[int, Vector]]]:
        new = []
        for batch in (made.batch(size) for _ in range(batches)):
            packed = bare.packed(batch)
            bare.copy("picture", packed["picture"])
            ids = copied_ids(packed["embedding"], model)
            new.append((packed["embedding"], dict(zip(ids, batch.vectors.values(), strict=True))))
        bare.commit()
        return new

    def copied(packed: bytes) -> None:
        bare.copy("embedding", packed)
        bare.commit()

    def theirs() -> float:
        new = stored()
        return _rate(batches * size, lambda: [copied(packed) for packed, _ in new])

    def ours() -> float:
        new = stored()
        return _rate(
            batches * size,
            lambda: [backfill.store(app.engine, model, vectors) for _, vectors in new],
        )

    return {"bare": theirs, "ours": ours}


def beside_copy(
    report: Report, app: App, rows: int, rounds: int, index: str, sizes: Sequence[int]
) -> None:
    """Each kind of writing and size of a transaction, and whether the goals are reached."""
    with psycopg.connect(database_url(app.settings)) as connection:
        bare = Bare(connection, app.catalog.model())
        for what, ways in (("products", products), ("embeddings", embeddings)):
            for size in sizes:
                found = in_turn(ways(app, bare, size, rows), rounds, unit="/s")
                share = ratio(found["ours"], found["bare"])
                report.row(writing=what, pgvector_index=index, a_transaction=size, **found,
                           ratio=share)  # fmt: skip
                report.goal(f"{what}, {size} a transaction, pgvector's index {index}", share, GOAL)


def _rate(rows: int, write: Callable[[], object]) -> float:
    began = time.perf_counter()
    write()
    return rows / (time.perf_counter() - began)


def grown(report: Report, app: App) -> None:
    """Adding to pgvector's index beside loading without it and making it anew."""
    for before, added in GROWN:
        seconds = {
            way: _grow(app, f"{way} {before} {added}", before, added, anew=way == "anew")
            for way in ("into", "anew")
        }
        faster = min(seconds, key=lambda way: seconds[way])
        share = (seconds["anew"] / (before + added)) / (seconds["into"] / added)
        report.row(there=before, added=added, into_the_index_s=seconds["into"],
                   without_then_anew_s=seconds["anew"], faster=faster,
                   a_built_row_as_share_of_an_added=share)  # fmt: skip
    report.note(f"The rule takes {BUILT} for the last column.")


def _grow(app: App, name: str, before: int, added: int, *, anew: bool) -> float:
    """Seconds to add embeddings to a partition of its own with an index of `before` rows."""
    with app.engine.begin() as connection:
        model = models.register(connection, name, "1", DIM, name)
        _unlimited(connection)
        hnsw_index.drop(connection, model.id)
        _fill(connection, model, 0, before)
    _create(app, model)
    began = time.perf_counter()
    if anew:
        with app.engine.begin() as connection:
            hnsw_index.drop(connection, model.id)
    for at in range(before, before + added, EMBEDDED_AT_ONCE):
        with app.engine.begin() as connection:
            with open_pipeline(connection) as trip:
                locks.begin_write(trip)
            _fill(connection, model, at, min(EMBEDDED_AT_ONCE, before + added - at))
    if anew:
        _create(app, model)
    return time.perf_counter() - began


def _fill(connection: Connection, model: Model, at: int, rows: int) -> None:
    """Embeddings of the pictures after the first `at`."""
    if rows:
        ids = np.arange(at + 1, at + 1 + rows, dtype=np.int64)
        copy.insert_rows(connection, copy.make_rows(model, ids, drawn(rows, at + 1)))


def _create(app: App, model: Model) -> None:
    plain = app.engine.execution_options(isolation_level="AUTOCOMMIT")
    with plain.connect() as connection:
        hnsw_index.create(connection, model)


def _unlimited(connection: Connection) -> None:
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000, help="products that are there before")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", type=int, default=4000, help="rows a way writes in a round")
    words = parser.parse_args()
    report = Report("writes", "Writing, beside bare COPY BINARY of the same rows")
    with catalogue(words.rows, own=True) as app:
        beside_copy(report, app, words.write, words.rounds, "absent", BATCHES)
        grown(report, app)
        _create(app, app.catalog.model())
        # Four hundred rows a second, so fewer of them.
        beside_copy(report, app, min(words.write, 256), words.rounds, "present", BATCHES[:2])
    report.write()


if __name__ == "__main__":
    main()
