"""SQL that finds candidate duplicate pairs for review, in bounded batches of the catalogue.

Each scan reads the catalogue in the order of a key and continues after the last key. Distances are
cosine distances (0 to 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from app.db.queries import pgvector_index
from app.types import Model

MAX_SHARED_BY = 8
"""A picture shown by more products counts as a placeholder and makes no pairs. At most this many
products with the same words are compared with each other."""

NEIGHBOURS = 10
"""Nearest pictures examined for each picture, itself included."""

MAX_QUERY_PICTURES = 4
"""The first pictures of a product, whose nearest pictures are searched."""

MAX_COMPARED = 50
"""The first pictures of a product, which are compared with those of another product."""

SkuPair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two products with pictures near each other, and the category of the first."""

    pair: SkuPair
    distance: float
    category: str | None


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """A picture of a product, and its distance to the nearest picture of the other product."""

    picture_id: int
    thumbnail: bytes
    distance: float | None


def shared_pictures(connection: Connection, after: int, limit: int) -> dict[int, list[str]]:
    """Skus of products that share a picture, by picture id, for up to `limit` ids above `after`."""
    sql = """
        WITH shared AS MATERIALIZED (
            SELECT picture_id FROM product_picture WHERE picture_id > :after
            GROUP BY picture_id HAVING count(*) BETWEEN 2 AND :crowd
            ORDER BY picture_id LIMIT :limit)
        SELECT picture_id AS key, array_agg(p.sku ORDER BY p.id) AS skus
        FROM shared JOIN product_picture USING (picture_id) JOIN product AS p ON p.id = product_id
        GROUP BY picture_id ORDER BY picture_id"""
    values = {"after": after, "limit": limit, "crowd": MAX_SHARED_BY}
    return {row.key: list(row.skus) for row in connection.execute(text(sql), values)}


def same_words(connection: Connection, after: str, limit: int) -> dict[str, list[str]]:
    """Skus of products that share an identity key, by key, for up to `limit` keys above `after`."""
    sql = """
        WITH shared AS MATERIALIZED (
            SELECT identity_key FROM product WHERE identity_key > :after
            GROUP BY identity_key HAVING count(*) > 1
            ORDER BY identity_key LIMIT :limit)
        SELECT identity_key AS key, array_agg(p.sku ORDER BY p.id) AS skus
        FROM shared, LATERAL (
            SELECT id, sku FROM product AS p WHERE p.identity_key = shared.identity_key
            ORDER BY id LIMIT :crowd) AS p
        GROUP BY identity_key ORDER BY identity_key"""
    values = {"after": after, "limit": limit, "crowd": MAX_SHARED_BY}
    return {row.key: list(row.skus) for row in connection.execute(text(sql), values)}


def product_ids_after(connection: Connection, after: int, limit: int) -> list[int]:
    """Up to `limit` product ids above `after`, in order."""
    sql = text("SELECT id FROM product WHERE id > :after ORDER BY id LIMIT :limit")
    return list(connection.execute(sql, {"after": after, "limit": limit}).scalars())


def near_pairs(
    connection: Connection, model: Model, products: Sequence[int], within: float
) -> list[NearPair]:
    """Pairs of these products (ids) and others with pictures at a distance of at most `within`.

    Uses pgvector's index if there is one, so a pair may be missed, and sets `ivfflat.probes` for
    the transaction. Placeholders make no pairs.
    """
    vec, named = f"vec::halfvec({model.dim})", "true"
    if index := pgvector_index.measured(connection, model.id):
        pgvector_index.set_probes(connection, index.probes)
        named = f"e.{index.condition}"
    sql = f"""
        WITH shown AS MATERIALIZED (
            SELECT looked.id AS product_id, first.picture_id, e.{vec} AS vec
            FROM unnest(CAST(:products AS bigint[])) AS looked (id), LATERAL (
                SELECT picture_id FROM product_picture AS pp WHERE pp.product_id = looked.id
                ORDER BY position LIMIT :own) AS first
            JOIN embedding AS e ON e.model_id = {model.id} AND e.picture_id = first.picture_id
        ), near AS MATERIALIZED (
            SELECT shown.product_id, near.picture_id, near.distance
            FROM shown, LATERAL (
                SELECT e.picture_id, e.{vec} <=> shown.vec AS distance
                FROM embedding AS e WHERE e.model_id = {model.id} AND {named}
                ORDER BY e.{vec} <=> shown.vec LIMIT :neighbours) AS near
            WHERE near.distance <= :within
        )
        SELECT a.sku AS sku_a, b.sku AS sku_b, a.category, min(near.distance) AS distance
        FROM near CROSS JOIN LATERAL (
            SELECT array_agg(product_id) AS ids FROM (
                SELECT product_id FROM product_picture AS pp
                WHERE pp.picture_id = near.picture_id LIMIT :crowd + 1) AS few) AS shows
        JOIN product AS a ON a.id = near.product_id
        JOIN product AS b ON b.id = ANY(shows.ids) AND b.id <> a.id
        WHERE cardinality(shows.ids) <= :crowd
        GROUP BY a.sku, b.sku, a.category"""
    values = {
        "products": list(products),
        "own": MAX_QUERY_PICTURES,
        "neighbours": NEIGHBOURS,
        "within": within,
        "crowd": MAX_SHARED_BY,
    }
    rows = connection.execute(text(sql), values)
    return [NearPair((row.sku_a, row.sku_b), row.distance, row.category) for row in rows]


def count_products(connection: Connection) -> int:
    """How many products there are."""
    return int(connection.execute(text("SELECT count(*) FROM product")).scalar_one())


def count_verdicts(connection: Connection) -> int:
    """How many verdicts there are."""
    return int(connection.execute(text("SELECT count(*) FROM duplicate_verdict")).scalar_one())


def distances(
    connection: Connection, model: Model, pairs: Sequence[SkuPair]
) -> dict[SkuPair, float]:
    """The distance of the nearest pictures of each pair; pairs without embeddings are left out."""
    sql = f"""
        SELECT pair.a, pair.b, near.distance
        FROM unnest(CAST(:first AS text[]), CAST(:second AS text[])) AS pair (a, b)
        JOIN product AS p ON p.sku = pair.a JOIN product AS q ON q.sku = pair.b, LATERAL (
            SELECT min(mine.vec <=> theirs.vec) AS distance
            FROM ({_embedded("p.id", model)}) AS mine, ({_embedded("q.id", model)}) AS theirs
        ) AS near
        WHERE near.distance IS NOT NULL"""
    values = {
        "first": [pair[0] for pair in pairs],
        "second": [pair[1] for pair in pairs],
        "compared": MAX_COMPARED,
    }
    return {(row.a, row.b): row.distance for row in connection.execute(text(sql), values)}


def side_by_side(
    connection: Connection, model: Model, product: int, other: int, limit: int
) -> list[ShownPicture]:
    """Up to `limit` pictures of a product, the nearest to a picture of the other product first."""
    sql = f"""
        SELECT pp.picture_id, pic.thumbnail, near.distance
        FROM (SELECT * FROM product_picture WHERE product_id = :product
            ORDER BY position LIMIT :compared) AS pp
        JOIN picture AS pic ON pic.id = pp.picture_id
        LEFT JOIN embedding AS mine
            ON mine.model_id = {model.id} AND mine.picture_id = pp.picture_id
        LEFT JOIN LATERAL (
            SELECT min(mine.vec <=> theirs.vec) AS distance
            FROM ({_embedded(":other", model)}) AS theirs
        ) AS near ON true
        ORDER BY near.distance NULLS LAST, pp.position LIMIT :limit"""
    values = {"product": product, "other": other, "compared": MAX_COMPARED, "limit": limit}
    rows = connection.execute(text(sql), values)
    return [ShownPicture(row.picture_id, bytes(row.thumbnail), row.distance) for row in rows]


def _embedded(product: str, model: Model) -> str:
    """SQL of the vectors of a product's first pictures; binds `compared`."""
    return f"""
        SELECT e.vec FROM (
            SELECT picture_id FROM product_picture WHERE product_id = {product}
            ORDER BY position LIMIT :compared) AS pp
        JOIN embedding AS e ON e.model_id = {model.id} AND e.picture_id = pp.picture_id"""
