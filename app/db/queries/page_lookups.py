"""Small statements beside a search in one statement, on a connection in autocommit mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import HalfVector
from psycopg.rows import namedtuple_row

from app.db.queries import fold_pictures, products
from app.types import Model, Vector

OWN_VECTORS = """
SELECT p.id, (
    SELECT string_agg(halfvec_send(e.vec), '' ORDER BY pp.position)
    FROM product_picture AS pp JOIN embedding AS e
        ON e.model_id = {model} AND e.picture_id = pp.picture_id
    WHERE pp.product_id = p.id) AS pictures
FROM product AS p WHERE p.sku = $1"""

EARLIER = """
SELECT DISTINCT ON (p.id) p.id, {fields}, e.picture_id, e.vec <=> CAST($1 AS halfvec) AS distance,
    halfvec_send(e.vec) AS vector
FROM product AS p JOIN product_picture AS pp ON pp.product_id = p.id
JOIN embedding AS e ON e.model_id = {model} AND e.picture_id = pp.picture_id
WHERE p.sku = ANY(CAST($2 AS text[]))
ORDER BY p.id, distance, e.picture_id"""

THUMBNAILS = "SELECT id, thumbnail FROM picture WHERE id = ANY(CAST($1 AS bigint[]))"


def own_vectors(
    connection: psycopg.Connection[Any], model: Model, sku: str
) -> tuple[int, NDArray[np.float32]] | None:
    """The id of a product and the embeddings of its pictures in their order, (n, dim), float32;
    None if there is no such product."""
    rows = _rows(connection, OWN_VECTORS.format(model=model.id), [sku])
    if not rows:
        return None
    packed = rows[0].pictures or b""
    return int(rows[0].id), fold_pictures.unpacked(packed, model).astype(np.float32)


def earlier(
    connection: psycopg.Connection[Any], model: Model, vector: Vector, skus: Sequence[str]
) -> Sequence[Any]:
    """The products with these skus that have a picture with an embedding.

    Rows of id, the fields of a product, and picture_id, distance and vector (packed) of the picture
    nearest to `vector`, shape (dim,).
    """
    sql = EARLIER.format(model=model.id, fields=products.FIELDS)
    return _rows(connection, sql, [HalfVector(vector), list(skus)])


def thumbnails(connection: psycopg.Connection[Any], pictures: Sequence[int]) -> dict[int, bytes]:
    """The thumbnails of these pictures (ids) as far as they exist."""
    return {row.id: row.thumbnail for row in _rows(connection, THUMBNAILS, [list(pictures)])}


def _rows(connection: psycopg.Connection[Any], sql: str, values: Sequence[Any]) -> Sequence[Any]:
    with psycopg.RawCursor(connection, row_factory=namedtuple_row) as cursor:
        return cursor.execute(" ".join(sql.split()), values, prepare=True, binary=True).fetchall()
