"""A catalogue with one picture and one random vector per product, inserted with SQL."""

from __future__ import annotations

import numpy as np
import psycopg

from app.bootstrap import App
from app.db.queries import embeddings


def fill(app: App, rows: int) -> None:
    """Insert products with a picture each and random vectors, and update the planner statistics."""
    with psycopg.connect(str(app.settings.database_url), autocommit=True) as sql:
        _fill(app, sql, rows)


def _fill(app: App, sql: psycopg.Connection, rows: int) -> None:
    sql.execute(
        "INSERT INTO picture (sha256, width, height, thumbnail)"
        " SELECT sha256(n::text::bytea), 1, 1, '' FROM generate_series(1, %s) AS n",
        [rows],
    )
    sql.execute("INSERT INTO product (sku, brand) SELECT id, 'b' || id %% 50 FROM picture", [])
    sql.execute(
        "INSERT INTO product_picture SELECT p.id, pic.id, 0, '' FROM product AS p"
        " JOIN picture AS pic ON pic.id::text = p.sku"
    )
    random = np.random.default_rng(rows).standard_normal((rows, 49)).astype(np.float32)
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    with app.engine.begin() as connection:
        model = app.catalog.model()
        embeddings.store(connection, model, dict(enumerate(random, start=1)))
    sql.execute("ANALYZE")
