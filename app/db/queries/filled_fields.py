"""SQL of the fields of stored products that have a value, which an ingest may empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from app.db.pipeline import open_pipeline

FILLED = """
SELECT p.sku, array_remove(ARRAY[
        CASE WHEN p.title <> '' THEN 'title' END,
        CASE WHEN p.brand <> '' THEN 'brand' END,
        CASE WHEN p.category <> '' THEN 'category' END,
        CASE WHEN p.colour <> '' THEN 'colour' END,
        CASE WHEN p.year IS NOT NULL THEN 'year' END,
        CASE WHEN p.price IS NOT NULL THEN 'price' END,
        CASE WHEN p.currency <> '' THEN 'currency' END], NULL) AS fields,
    CASE WHEN p.attributes = '{}' THEN '{}'
        ELSE ARRAY(SELECT jsonb_object_keys(p.attributes)) END AS attributes,
    (SELECT count(*) FROM product_picture AS pp WHERE pp.product_id = p.id) AS pictures
FROM product AS p WHERE p.sku = ANY(CAST(%(skus)b AS text[]))"""


@dataclass(frozen=True, slots=True)
class FilledFields:
    """Names of the fields and attributes of a product that have a value; number of pictures."""

    fields: frozenset[str]
    attributes: frozenset[str]
    pictures: int


def of_products(connection: Connection, skus: Sequence[str]) -> dict[str, FilledFields]:
    """The filled fields of the stored products with these skus, by sku."""
    with open_pipeline(connection) as pipeline:
        rows = pipeline.send(FILLED, {"skus": list(skus)})
    return {
        row.sku: FilledFields(frozenset(row.fields), frozenset(row.attributes), row.pictures)
        for row in rows()
    }
