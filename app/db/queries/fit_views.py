"""SQL that reads pictures of which it is known what product they show, to fit a model to them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from sqlalchemy import Connection, text

from app.types import Model

PICTURES = """
SELECT p.sku, array_agg(pp.picture_id ORDER BY pp.position) AS pictures
FROM product AS p
JOIN product_picture AS pp ON pp.product_id = p.id
JOIN embedding AS e ON e.picture_id = pp.picture_id AND e.model_id = :model
WHERE p.sku = ANY(CAST(:skus AS text[]))
GROUP BY p.sku"""

TIMES_SHOWN = """
SELECT picture_id, count(DISTINCT product_id) AS products FROM product_picture
WHERE picture_id = ANY(:ids) GROUP BY picture_id"""

# A picture that several products show says nothing about which of them a photo shows.
SEVERAL = """
SELECT p.sku FROM product AS p JOIN product_picture AS pp ON pp.product_id = p.id
WHERE NOT EXISTS (SELECT FROM product_picture AS other
    WHERE other.picture_id = pp.picture_id AND other.product_id <> pp.product_id)
GROUP BY p.sku HAVING count(DISTINCT pp.picture_id) > 1
ORDER BY md5(p.sku), p.sku LIMIT :limit"""

OTHERS = """
SELECT p.sku, first.picture_id
FROM product AS p
CROSS JOIN LATERAL (SELECT pp.picture_id FROM product_picture AS pp
    WHERE pp.product_id = p.id ORDER BY pp.position LIMIT 1) AS first
JOIN embedding AS e ON e.picture_id = first.picture_id AND e.model_id = :model
WHERE p.sku <> ALL(CAST(:skus AS text[]))
ORDER BY md5(p.sku), p.sku LIMIT :limit"""


def pictures(connection: Connection, model: Model, skus: Collection[str]) -> dict[str, list[int]]:
    """The ids of the embedded pictures of these products, in their order; none without any."""
    rows = connection.execute(text(PICTURES), {"model": model.id, "skus": sorted(skus)})
    return {row.sku: list(dict.fromkeys(row.pictures)) for row in rows}


def times_shown(connection: Connection, pictures: Iterable[Sequence[int]]) -> dict[int, int]:
    """How many products show each of these pictures (ids)."""
    ids = sorted({id_ for own in pictures for id_ in own})
    rows = connection.execute(text(TIMES_SHOWN), {"ids": ids})
    return {row.picture_id: row.products for row in rows}


def with_several_pictures(connection: Connection, limit: int) -> list[str]:
    """Skus of products with two or more pictures that no other product shows, in a fixed arbitrary
    order."""
    return list(connection.execute(text(SEVERAL), {"limit": limit}).scalars())


def first_pictures_of_others(
    connection: Connection, model: Model, skus: Sequence[str], limit: int
) -> dict[str, int]:
    """The first picture of up to `limit` products that are not among `skus`, in a fixed arbitrary
    order; of embedded pictures only."""
    values = {"model": model.id, "skus": list(skus), "limit": limit}
    return {row.sku: row.picture_id for row in connection.execute(text(OTHERS), values)}
