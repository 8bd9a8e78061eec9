"""Fills a titled catalogue of many million products, in blocks and by several processes.

What a catalogue of `bench.data.catalogue` has, except for thumbnails: they are empty, as ten
million would take 70 GB. Secondary indexes are created after the rows. A load that was interrupted
goes on with the blocks that are missing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psycopg

from app.db import copy
from app.db.embedded import server as embedded_server
from app.types import Model
from bench.data.titled_products import shows_same_picture, titled_products, with_duplicates
from bench.data.vectors import generate_rows

BLOCK_ROWS = 10_000
PROCESSES = 4
INDEXES_FILE = "indexes.json"
TABLES = ("product", "product_picture", "product_words", "picture")

LOAD_OPTIONS = {
    "shared_buffers": "1GB",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "autovacuum": "off",
}
"""Settings of the server during the load only; a crash of the machine would lose the catalogue."""

SECONDARY_INDEXES = """
SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) FROM pg_index AS i
WHERE i.indrelid = ANY(%s::regclass[])
    AND NOT EXISTS (SELECT FROM pg_constraint AS c WHERE c.conindid = i.indexrelid)"""

PICTURES = """
INSERT INTO picture (id, sha256, width, height, thumbnail) OVERRIDING SYSTEM VALUE
SELECT n, sha256(n::text::bytea), 480, 480, '' FROM unnest(%s::bigint[]) AS n"""

FIELDS = "id, sku, title, brand, category, colour, year, identity_key"


def fill(home: Path, model: Model, rows: int) -> dict[str, float]:
    """Fill the migrated database of `home` with so many products; returns the seconds of the phases
    (`rows_s`, `indexes_s`, `vacuum_s`)."""
    began = time.monotonic()
    embedded_server.stop(home)
    url = embedded_server.start(home, LOAD_OPTIONS)
    with psycopg.connect(url, autocommit=True) as connection:
        _drop_indexes(connection, home)
    command = [sys.executable, "-m", "bench.data.large_catalogue", url, str(model.id)]
    parts = [
        subprocess.Popen([*command, str(model.dim), str(rows), str(part)])
        for part in range(PROCESSES)
    ]
    if any([part.wait() for part in parts]):
        raise RuntimeError("A process of the load failed; run it again to load what is missing.")
    loaded = time.monotonic()
    print(f"  rows: {loaded - began:,.0f} s", flush=True)
    with psycopg.connect(url, autocommit=True) as connection:
        _create_indexes(connection, home)
        indexed = time.monotonic()
        print(f"  indexes: {indexed - loaded:,.0f} s", flush=True)
        for table in ("product", "picture"):
            connection.execute("SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)", (table, rows))
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")
    embedded_server.stop(home)
    vacuumed = time.monotonic()
    return {
        "rows_s": loaded - began, "indexes_s": indexed - loaded, "vacuum_s": vacuumed - indexed,
    }  # fmt: skip


def _drop_indexes(connection: psycopg.Connection, home: Path) -> None:
    """Drop the indexes that belong to no constraint, after noting how to create them."""
    file = home / INDEXES_FILE
    found = dict(connection.execute(SECONDARY_INDEXES, (list(TABLES),)).fetchall())
    if not file.exists():
        file.write_text(json.dumps(found))
    for name in found:
        connection.execute(f"DROP INDEX {name}".encode())


def _create_indexes(connection: psycopg.Connection, home: Path) -> None:
    connection.execute("SET maintenance_work_mem = '1GB'")
    connection.execute("SET max_parallel_maintenance_workers = 1")
    present = dict(connection.execute(SECONDARY_INDEXES, (list(TABLES),)).fetchall())
    for name, definition in json.loads((home / INDEXES_FILE).read_text()).items():
        if name not in present:
            connection.execute(definition)
            print(f"  {name}", flush=True)


def _load_part(url: str, model: Model, rows: int, part: int) -> None:
    """Load every `PROCESSES`-th block from the block `part` on, each in a transaction."""
    with psycopg.connect(url) as connection:
        for number, begin in enumerate(range(0, rows, BLOCK_ROWS)):
            if number % PROCESSES == part:
                with connection.transaction():
                    _load_block(connection, model, begin, min(BLOCK_ROWS, rows - begin))
                if number % 100 == part:
                    print(f"  {begin:,} of {rows:,} rows", flush=True)


def _load_block(connection: psycopg.Connection, model: Model, begin: int, rows: int) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT FROM product WHERE id = %s", (begin + 1,))
    if cursor.fetchone() is not None:
        return
    vectors, clusters = generate_rows(rows, begin + 1)
    vectors = with_duplicates(vectors, begin + 2)
    with cursor.copy(f"COPY product ({FIELDS}) FROM STDIN") as copying:
        for id_, (product, key) in enumerate(titled_products(clusters, begin), start=begin + 1):
            copying.write_row((
                id_, product.sku, product.title, product.brand, product.category, product.colour,
                product.year, key,
            ))  # fmt: skip
    own = np.array([not shows_same_picture(begin + row) for row in range(rows)])
    ids = np.arange(begin + 1, begin + 1 + rows)[own]
    with _trusted(cursor):
        cursor.execute(PICTURES, (ids.tolist(),))
        with cursor.copy(
            "COPY product_picture (product_id, picture_id, position, uri) FROM STDIN"
        ) as copying:
            for row in range(begin, begin + rows):
                picture = row if shows_same_picture(row) else row + 1
                copying.write_row((row + 1, picture, 0, f"{picture}.jpg"))
        statement = "COPY embedding (model_id, picture_id, vec) FROM STDIN (FORMAT BINARY)"
        with cursor.copy(statement) as copying:
            copying.write(copy.pack(copy.make_rows(model, ids, vectors[own])))


@contextmanager
def _trusted(cursor: psycopg.Cursor) -> Iterator[None]:
    """Without the checks of foreign keys; triggers that stamp rows still run."""
    cursor.execute("SET session_replication_role = replica")
    yield
    cursor.execute("SET session_replication_role = origin")


if __name__ == "__main__":
    url, model_id, dim, rows, part = sys.argv[1:]
    model = Model(id=int(model_id), name="", revision="", dim=int(dim), fingerprint="")
    _load_part(url, model, int(rows), int(part))
