"""Catalogues of any size for benchmarks: clustered random vectors in a server of their own."""

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

PREFIX = "lookalike-bench-"
FILLED = "filled.json"

DIM = 512
BLOCK = 10_000
CLUSTERS = 2000
SPREAD = 0.7
"""Length of a vector's step away from the centre of its cluster."""


def drawn(rows: int, seed: int) -> Vectors:
    """Unit vectors around common centres, shape (rows, 512), float32."""
    centres = np.random.default_rng(0).standard_normal((CLUSTERS, DIM)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    random = np.random.default_rng(seed)
    steps = random.standard_normal((rows, DIM)).astype(np.float32) * (SPREAD / DIM**0.5)
    found: Vectors = centres[random.integers(0, CLUSTERS, rows)] + steps
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@contextmanager
def catalogue(rows: int, *, hnsw: bool = False, own: bool = False) -> Iterator[App]:
    """A database of so many products with a picture each, vacuumed; deleted at the end.

    With `LOOKALIKE_BENCH_KEEP`, a folder, it is kept there for the next benchmark that wants one
    of the same size; not so `own` ones, which are left with other products than they had. What is
    kept stays as it was made: delete it after a migration.
    """
    keep = None if own else os.environ.get("LOOKALIKE_BENCH_KEEP")
    home = Path(keep, f"{rows}{'-hnsw' * hnsw}") if keep else Path(tempfile.mkdtemp(prefix=PREFIX))
    home.mkdir(parents=True, exist_ok=True)
    try:
        with App(Settings(home=home, model="embedded", sample_queries=False)) as app:
            if not (home / FILLED).exists():
                app.initialise()  # only once: it would make the index anew that was left off
                figures = _fill(app, rows, hnsw)
                (home / FILLED).write_text(json.dumps(figures))
            yield app
    finally:
        embedded_server.stop(home)
        if not keep:
            shutil.rmtree(home, ignore_errors=True)


def filling(app: App) -> dict[str, float]:
    """How many seconds the vectors and pgvector's index over them took."""
    found: dict[str, float] = json.loads((app.settings.home / FILLED).read_text())
    return found


def _fill(app: App, rows: int, hnsw: bool) -> dict[str, float]:
    model, figures = app.catalog.model(), {}
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
        for begin in range(0, rows, BLOCK):
            vectors = drawn(min(BLOCK, rows - begin), begin + 1)
            ids = np.arange(begin + 1, begin + 1 + len(vectors), dtype=np.int64)
            copy.insert_rows(connection, copy.make_rows(model, ids, vectors))
        figures["vectors_s"] = time.monotonic() - began
        if hnsw:
            began = time.monotonic()
            connection.execute(text("SET LOCAL maintenance_work_mem = '2GB'"))
            connection.execute(
                text(
                    f"CREATE INDEX embedding_m{model.id}_vec_idx ON embedding_m{model.id}"
                    f" USING hnsw ((vec::halfvec({model.dim})) halfvec_cosine_ops)"
                )
            )
            figures["hnsw_s"] = time.monotonic() - began
    with app.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE"))
        connection.execute(text("RESET statement_timeout"))
    return figures
