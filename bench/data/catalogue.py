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
from sqlalchemy import text

from app.bootstrap import App
from app.config import Settings
from app.db import copy
from app.db.embedded import server as embedded_server
from app.types import Vectors

FOLDER_PREFIX = "lookalike-bench-"
FILLED_FILE = "filled.json"
"""Exists once a catalogue is complete; holds the durations that `load_durations` returns."""

DIM = 512
BLOCK_ROWS = 10_000
CLUSTERS = 2000
CLUSTER_SPREAD = 0.7
"""Expected distance of a vector from the centre of its cluster, before normalisation."""


def generate_vectors(rows: int, seed: int) -> Vectors:
    """Unit vectors, shape (rows, 512), float32; the cluster centres do not depend on `seed`."""
    centres = np.random.default_rng(0).standard_normal((CLUSTERS, DIM)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    random = np.random.default_rng(seed)
    steps = random.standard_normal((rows, DIM)).astype(np.float32) * (CLUSTER_SPREAD / DIM**0.5)
    vectors: Vectors = centres[random.integers(0, CLUSTERS, rows)] + steps
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@contextmanager
def catalogue(rows: int, *, hnsw: bool = False, own: bool = False) -> Iterator[App]:
    """A database of `rows` products with one picture each, vacuumed; deleted at the end.

    `hnsw` adds pgvector's index. If `LOOKALIKE_BENCH_KEEP` names a folder, the database is kept
    there and reused by the next benchmark of the same size. Benchmarks that change the products
    pass `own=True` and get a database that is not shared. Kept databases are never migrated:
    delete them after a new migration.
    """
    keep_folder = None if own else os.environ.get("LOOKALIKE_BENCH_KEEP")
    home = (
        Path(keep_folder, f"{rows}{'-hnsw' * hnsw}")
        if keep_folder
        else Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    )
    home.mkdir(parents=True, exist_ok=True)
    try:
        with App(Settings(home=home, model="embedded", sample_queries=False)) as app:
            if not (home / FILLED_FILE).exists():
                app.initialise()  # only once: it would create the HNSW index that was left out
                durations = _fill_database(app, rows, hnsw)
                (home / FILLED_FILE).write_text(json.dumps(durations))
            yield app
    finally:
        embedded_server.stop(home)
        if not keep_folder:
            shutil.rmtree(home, ignore_errors=True)


def load_durations(app: App) -> dict[str, float]:
    """Seconds to insert the vectors (`vectors_s`) and to build pgvector's index (`hnsw_s`)."""
    durations: dict[str, float] = json.loads((app.settings.home / FILLED_FILE).read_text())
    return durations


def _fill_database(app: App, rows: int, hnsw: bool) -> dict[str, float]:
    model, durations = app.catalog.model(), {}
    with app.engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text(f"DROP INDEX embedding_m{model.id}_vec_idx"))
        connection.execute(
            text(
                "INSERT INTO picture (sha256, width, height, thumbnail) SELECT"
                " sha256(n::text::bytea), 480, 480, decode(repeat(md5(n::text), 460), 'hex')"
                " FROM generate_series(1, :rows) AS n"
            ),
            {"rows": rows},
        )
        connection.execute(
            text(
                "INSERT INTO product (sku, title, brand, category, year, price) SELECT 'S' || id,"
                " 'title ' || id, 'b' || id % 100, 'c' || id % 20, 2000 + id % 25, id % 1000"
                " FROM picture"
            )
        )
        connection.execute(
            text("INSERT INTO product_picture SELECT id, id, 0, id || '.jpg' FROM product")
        )
        began = time.monotonic()
        for begin in range(0, rows, BLOCK_ROWS):
            vectors = generate_vectors(min(BLOCK_ROWS, rows - begin), begin + 1)
            ids = np.arange(begin + 1, begin + 1 + len(vectors), dtype=np.int64)
            copy.insert_rows(connection, copy.make_rows(model, ids, vectors))
        durations["vectors_s"] = time.monotonic() - began
        if hnsw:
            began = time.monotonic()
            connection.execute(text("SET LOCAL maintenance_work_mem = '2GB'"))
            connection.execute(
                text(
                    f"CREATE INDEX embedding_m{model.id}_vec_idx ON embedding_m{model.id}"
                    f" USING hnsw ((vec::halfvec({model.dim})) halfvec_cosine_ops)"
                )
            )
            durations["hnsw_s"] = time.monotonic() - began
    with app.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE"))
        connection.execute(text("RESET statement_timeout"))
    return durations
