"""Generated catalogues of any size: clustered random vectors on a separate embedded server."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from sqlalchemy import Connection, text

from app.bootstrap import App
from app.catalog import fallback_index
from app.config import Settings
from app.db import copy
from app.db.embedded import server as embedded_server
from app.db.engine import driver_connection
from app.types import Model
from bench.data import large_catalogue
from bench.data.titled_products import shows_same_picture, titled_products, with_duplicates
from bench.data.vectors import generate_clusters, generate_vectors

UNUSED_PICTURES = """DELETE FROM picture AS p WHERE NOT EXISTS (
    SELECT FROM product_picture AS pp WHERE pp.picture_id = p.id)"""

FOLDER_PREFIX = "lookalike-bench-"
FILLED_FILE = "filled.json"
"""Exists once a catalogue is complete; holds the durations that `load_durations` returns."""

BLOCK_ROWS = 10_000
LARGE_ROWS = 2_000_000
"""From here on a catalogue is that of `large_catalogue`: titled, without thumbnails and without
pgvector's index, whatever is asked for."""


@contextmanager
def catalogue(
    rows: int,
    *,
    pgvector: bool = False,
    hnsw: bool = False,
    own: bool = False,
    titled: bool = False,
) -> Iterator[App]:
    """A database of `rows` products with one picture each, vacuumed; deleted at the end.

    `pgvector` adds pgvector's index, `hnsw` an HNSW index to compare with; with `titled` the
    products are those of `titled_products`. If `LOOKALIKE_BENCH_KEEP` names a folder, the database
    is kept there and reused by the next benchmark of the same size. Benchmarks that change the
    products pass `own=True` and get a database that is not shared. Kept databases are never
    migrated: delete them after a new migration.
    """
    keep_folder = None if own else os.environ.get("LOOKALIKE_BENCH_KEEP")
    home = (
        Path(keep_folder, f"{rows}{'-ivf' * pgvector}{'-hnsw' * hnsw}{'-titled' * titled}")
        if keep_folder
        else Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    )
    home.mkdir(parents=True, exist_ok=True)
    settings = Settings(home=home, model="embedded", sample_queries=False)
    try:
        if rows >= LARGE_ROWS and not (home / FILLED_FILE).exists():
            _fill_large(settings, rows)
        with App(settings) as app:
            if not (home / FILLED_FILE).exists():
                app.initialise()  # only once: it would create the index that was left out
                durations = _fill_database(app, rows, hnsw, titled)
                if pgvector:
                    began = time.monotonic()
                    fallback_index.maintain(app.engine)
                    durations["pgvector_s"] = time.monotonic() - began
                (home / FILLED_FILE).write_text(json.dumps(durations))
            yield app
    finally:
        embedded_server.stop(home)
        if not keep_folder:
            shutil.rmtree(home, ignore_errors=True)


def load_durations(app: App) -> dict[str, float]:
    """Seconds to insert the vectors (`vectors_s`), to build and measure pgvector's index
    (`pgvector_s`), and to build an HNSW index (`hnsw_s`)."""
    durations: dict[str, float] = json.loads((app.settings.home / FILLED_FILE).read_text())
    return durations


def _fill_large(settings: Settings, rows: int) -> None:
    """Fill a large catalogue, or go on where an earlier run was interrupted."""
    with App(settings) as app:
        app.initialise()
        model = app.catalog.model()
    durations = large_catalogue.fill(settings.home, model, rows)
    (settings.home / FILLED_FILE).write_text(json.dumps(durations))


def _fill_database(app: App, rows: int, hnsw: bool, titled: bool) -> dict[str, float]:
    model: Model = app.catalog.model()
    durations: dict[str, float] = {}
    with app.engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(
            text(
                "INSERT INTO picture (sha256, width, height, thumbnail) SELECT"
                " sha256(n::text::bytea), 480, 480, decode(repeat(md5(n::text), 460), 'hex')"
                " FROM generate_series(1, :rows) AS n"
            ),
            {"rows": rows},
        )
        if titled:
            _insert_titled_products(connection, rows)
        else:
            connection.execute(
                text(
                    "INSERT INTO product (sku, title, brand, category, year, price) SELECT"
                    " 'S' || id, 'title ' || id, 'b' || id % 100, 'c' || id % 20, 2000 + id % 25,"
                    " id % 1000 FROM picture"
                )
            )
            connection.execute(
                text("INSERT INTO product_picture SELECT id, id, 0, id || '.jpg' FROM product")
            )
        began = time.monotonic()
        for begin in range(0, rows, BLOCK_ROWS):
            vectors = generate_vectors(min(BLOCK_ROWS, rows - begin), begin + 1)
            if titled:
                vectors = with_duplicates(vectors, begin + 2)
            ids = np.arange(begin + 1, begin + 1 + len(vectors), dtype=np.int64)
            copy.insert_rows(connection, copy.make_rows(model, ids, vectors))
        durations["vectors_s"] = time.monotonic() - began
        if titled:  # swept, as in use: half of the duplicates show the picture of another row
            connection.execute(text(UNUSED_PICTURES))
        if hnsw:
            began = time.monotonic()
            connection.execute(text("SET LOCAL maintenance_work_mem = '2GB'"))
            connection.execute(
                text(
                    f"CREATE INDEX embedding_m{model.id}_hnsw_idx ON embedding_m{model.id}"
                    f" USING hnsw ((vec::halfvec({model.dim})) halfvec_cosine_ops)"
                )
            )
            durations["hnsw_s"] = time.monotonic() - began
    with app.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE"))
        connection.execute(text("RESET statement_timeout"))
    return durations


def _insert_titled_products(connection: Connection, rows: int) -> None:
    """Insert the products of `titled_products`, each with its picture."""
    clusters = np.concatenate([
        generate_clusters(min(BLOCK_ROWS, rows - begin), begin + 1)
        for begin in range(0, rows, BLOCK_ROWS)
    ])  # fmt: skip
    fields = "id, sku, title, brand, category, colour, year, identity_key"
    cursor = driver_connection(connection).cursor()
    with cursor.copy(f"COPY product ({fields}) FROM STDIN") as copying:
        for id_, (product, key) in enumerate(titled_products(clusters), start=1):
            copying.write_row((
                id_, product.sku, product.title, product.brand, product.category, product.colour,
                product.year, key,
            ))  # fmt: skip
    cursor.execute("SELECT setval(pg_get_serial_sequence('product', 'id'), %s)", (rows,))
    links = "product_id, picture_id, position, uri"
    with cursor.copy(f"COPY product_picture ({links}) FROM STDIN") as copying:
        for row in range(rows):
            picture = row if shows_same_picture(row) else row + 1
            copying.write_row((row + 1, picture, 0, f"{picture}.jpg"))
