"""SQL of facets: values of columns, ranges of years and prices, and the newest products."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, text

from app.db.queries.products import FIELDS
from app.types import Product, StoredPicture

VALUES = """
SELECT {column}, count(*), count(*) OVER () FROM product WHERE {column} <> ''
GROUP BY {column} ORDER BY count(*) DESC, {column} LIMIT :most"""

BOUNDS = """
SELECT count(*) AS products, min(year) AS first_year, max(year) AS last_year,
    min(price) AS lowest, max(price) AS highest
FROM product"""

NEWEST = f"""
SELECT {FIELDS}, pic.width, pic.height, pic.thumbnail, shown.uri
FROM product AS p JOIN LATERAL (
    SELECT pp.picture_id, pp.uri FROM product_picture AS pp
    WHERE pp.product_id = p.id ORDER BY pp.position LIMIT 1) AS shown ON true
JOIN picture AS pic ON pic.id = shown.picture_id
ORDER BY p.id DESC LIMIT :most"""


@dataclass(frozen=True, slots=True)
class FacetValues:
    """Values of a column with their numbers of products, most frequent first.

    `left_out` is the number of further values.
    """

    counts: tuple[tuple[str, int], ...] = ()
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class FacetRange:
    """The number of products, and the ranges of years and prices; None: no product has any."""

    products: int
    first_year: int | None
    last_year: int | None
    lowest: Decimal | None
    highest: Decimal | None


def values(connection: Connection, column: str, most: int) -> FacetValues:
    """The `most` most frequent non-empty values of a text column of `product`."""
    rows = connection.execute(text(VALUES.format(column=column)), {"most": most}).all()
    distinct = rows[0][2] if rows else 0
    return FacetValues(tuple((row[0], row[1]) for row in rows), distinct - len(rows))


def bounds(connection: Connection) -> FacetRange:
    """The ranges over all products."""
    return FacetRange(*connection.execute(text(BOUNDS)).one())


def newest(connection: Connection, most: int) -> list[tuple[Product, StoredPicture]]:
    """The `most` newest products that have a picture, each with its first picture."""
    rows = connection.execute(text(NEWEST), {"most": most})
    return [_newest_product(row) for row in rows]


def _newest_product(row: Any) -> tuple[Product, StoredPicture]:
    *product, width, height, thumbnail, uri = row
    return Product(*product), StoredPicture(width, height, bytes(thumbnail), uri)
