"""Small statements beside a search in one statement, on a connection in autocommit mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import HalfVector
from psycopg.rows import namedtuple_row

from app.db.halfvec_arrays import HalfvecArray
from app.db.queries import calibration, fold_pictures, products, shared_pictures, verdicts
from app.db.queries.match_counts import COUNT_LIMIT
from app.types import Calibration, Count, Model, Vector, Verdict

OWN_VECTORS = """
SELECT p.id, coalesce((
    SELECT array_agg(pp.picture_id) FROM product_picture AS pp WHERE pp.product_id = p.id
    ), '{{}}') AS all_pictures, (
    SELECT string_agg(halfvec_send(e.vec), '' ORDER BY pp.position)
    FROM product_picture AS pp JOIN embedding AS e
        ON e.model_id = {model} AND e.picture_id = pp.picture_id
    WHERE pp.product_id = p.id) AS pictures
FROM product AS p WHERE p.sku = $1"""

EARLIER = """
SELECT DISTINCT ON (p.id) p.id, {fields}, e.picture_id, e.vec <=> CAST($1 AS halfvec) AS distance,
    array_agg(pp.picture_id) OVER (PARTITION BY p.id) AS all_pictures{vector}
FROM product AS p JOIN product_picture AS pp ON pp.product_id = p.id
JOIN embedding AS e ON e.model_id = {model} AND e.picture_id = pp.picture_id
WHERE p.sku = ANY(CAST($2 AS text[]))
ORDER BY p.id, distance, e.picture_id"""

PICTURES_OF = """
SELECT p.id, array_agg(pp.picture_id) AS all_pictures
FROM product AS p JOIN product_picture AS pp ON pp.product_id = p.id
WHERE p.sku = ANY(CAST($1 AS text[])) GROUP BY p.id"""

EARLIER_BY_LIST = """
SELECT DISTINCT ON (asked.list, p.id) asked.list, p.id, {fields}, e.picture_id,
    e.vec <=> asked.q AS distance{vector}
FROM product AS p JOIN product_picture AS pp ON pp.product_id = p.id
JOIN embedding AS e ON e.model_id = {model} AND e.picture_id = pp.picture_id
CROSS JOIN unnest(CAST($1 AS halfvec[]), CAST($3 AS bigint[]))
    WITH ORDINALITY AS asked (q, list, number)
WHERE p.sku = ANY(CAST($2 AS text[]))
ORDER BY asked.list, p.id, distance, asked.number, e.picture_id"""

FOLD_PICTURES = """
WITH {compared}
SELECT told.sku, {aggregate} AS pictures, (
    SELECT jsonb_agg(to_jsonb(c)) FROM calibration AS c
    WHERE c.model_id = {model} AND (c.category = '' OR c.category IN (
        SELECT category FROM product WHERE sku = ANY(CAST($1 AS text[]))))) AS calibrations
{vectors} GROUP BY told.sku"""

SAME_WORDS = """
SELECT p.id, {count} AS same_words FROM product AS p WHERE p.id = ANY(CAST($1 AS bigint[]))"""

THUMBNAILS = "SELECT id, thumbnail FROM picture WHERE id = ANY(CAST($1 AS bigint[]))"


class OwnVectors(NamedTuple):
    """A product by id, the embeddings of its pictures in their order, (n, dim), float32, and the
    ids of all of its pictures."""

    id: int
    vectors: NDArray[np.float32]
    pictures: tuple[int, ...]


def own_vectors(connection: psycopg.Connection[Any], model: Model, sku: str) -> OwnVectors | None:
    """The product that a query asks with; None if there is no such product."""
    rows = _rows(connection, OWN_VECTORS.format(model=model.id), [sku])
    if not rows:
        return None
    packed = rows[0].pictures or b""
    vectors = fold_pictures.unpacked(packed, model).astype(np.float32)
    return OwnVectors(int(rows[0].id), vectors, tuple(rows[0].all_pictures))


def earlier(
    connection: psycopg.Connection[Any],
    model: Model,
    vector: Vector,
    skus: Sequence[str],
    *,
    vectors: bool,
) -> Sequence[Any]:
    """The products with these skus that have a picture with an embedding.

    Rows of id, the fields of a product, picture_id and distance of the picture nearest to `vector`,
    shape (dim,), and the ids of all its embedded pictures (`all_pictures`); with `vectors` also the
    embedding of the nearest one (`vector`, packed).
    """
    packed = ", halfvec_send(e.vec) AS vector" if vectors else ""
    sql = EARLIER.format(model=model.id, fields=products.FIELDS, vector=packed)
    return _rows(connection, sql, [HalfVector(vector), list(skus)])


def pictures_of(connection: psycopg.Connection[Any], skus: Sequence[str]) -> Sequence[Any]:
    """The products with these skus that have a picture: rows of id and `all_pictures` (ids)."""
    return _rows(connection, PICTURES_OF, [list(skus)])


def earlier_by_list(
    connection: psycopg.Connection[Any],
    model: Model,
    lists: Sequence[Sequence[Vector]],
    skus: Sequence[str],
    *,
    vectors: bool,
) -> Sequence[Any]:
    """As `earlier`, for each list of vectors, (dim,): by the nearest of them. Rows also have the
    number of their `list`, from 1 on."""
    packed = ", halfvec_send(e.vec) AS vector" if vectors else ""
    sql = EARLIER_BY_LIST.format(model=model.id, fields=products.FIELDS, vector=packed)
    asked = [(number, vector) for number, own in enumerate(lists, 1) for vector in own]
    queries = HalfvecArray(np.stack([vector for _, vector in asked]))
    return _rows(connection, sql, [queries, list(skus), [number for number, _ in asked]])


def fold_evidence(
    connection: psycopg.Connection[Any], model: Model, skus: Sequence[str]
) -> tuple[dict[str, NDArray[np.float16]], Sequence[Calibration]]:
    """The embeddings of the compared pictures of products, (pictures, dim), float16, by sku, as far
    as they have any, and the calibrations of their categories."""
    compared = fold_pictures.COMPARED_PICTURES.format(
        products="(SELECT id, sku FROM product WHERE sku = ANY(CAST($1 AS text[]))) AS p"
    )
    sql = FOLD_PICTURES.format(
        compared=compared, aggregate=fold_pictures.AGGREGATE, model=model.id,
        vectors=fold_pictures.PACKED.format(model=model.id),
    )  # fmt: skip
    rows = _rows(connection, sql, [list(skus)])
    calibrations = calibration.from_json((rows[0].calibrations if rows else None) or ())
    return {row.sku: fold_pictures.unpacked(row.pictures, model) for row in rows}, calibrations


def related_verdicts(connection: psycopg.Connection[Any], skus: Sequence[str]) -> list[Verdict]:
    """The verdicts that concern these skus, as `verdicts.related`."""
    sql = verdicts.RELATED.format(skus="SELECT unnest(CAST($1 AS text[])) AS sku")
    rows = _rows(connection, sql, [list(skus)])
    return verdicts.from_rows(rows)


def shown_by_more(
    connection: psycopg.Connection[Any], pictures: Sequence[int], most: int
) -> dict[int, Count]:
    """How many products show each of these pictures (ids) that more than `most` show."""
    numbers = {"ids": "$1", "most": "$2", "limit": str(COUNT_LIMIT)}
    rows = _rows(connection, shared_pictures.SHOWN_BY % numbers, [list(pictures), most])
    return {row.picture_id: shared_pictures.count(row.products) for row in rows}


def same_words(connection: psycopg.Connection[Any], ids: Sequence[int]) -> dict[int, int]:
    """How many products have the words of each of these (ids), as `products.COUNT_SAME_WORDS`."""
    sql = SAME_WORDS.format(count=products.COUNT_SAME_WORDS.format(product="p"))
    return {row.id: row.same_words for row in _rows(connection, sql, [list(ids)])}


def thumbnails(connection: psycopg.Connection[Any], pictures: Sequence[int]) -> dict[int, bytes]:
    """The thumbnails of these pictures (ids) as far as they exist."""
    return {row.id: row.thumbnail for row in _rows(connection, THUMBNAILS, [list(pictures)])}


def _rows(connection: psycopg.Connection[Any], sql: str, values: Sequence[Any]) -> Sequence[Any]:
    with psycopg.RawCursor(connection, row_factory=namedtuple_row) as cursor:
        return cursor.execute(" ".join(sql.split()), values, prepare=True, binary=True).fetchall()
