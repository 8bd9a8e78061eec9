"""SQL of lists: the products that pass a filter, sorted, a page at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection

from app.db.queries.match_counts import COUNT_LIMIT
from app.db.queries.nearest import FilterClause
from app.db.queries.products import FIELDS, product_from_row
from app.types import Count, Product

ListOrder = Literal["newest", "cheapest", "dearest"]

ORDERS: dict[ListOrder, str] = {
    "newest": "p.id DESC",
    "cheapest": "p.price NULLS LAST, p.id DESC",
    "dearest": "p.price DESC NULLS LAST, p.id DESC",
}

# The products of the page are chosen before their pictures are read.
LISTED = """
WITH listed AS MATERIALIZED (
    SELECT p.id, {fields}, row_number() OVER (ORDER BY {order}) AS place
    FROM product AS p WHERE {condition} ORDER BY {order}
    LIMIT %(count)s OFFSET %(first)s)
SELECT listed.*, shown.thumbnail
FROM listed LEFT JOIN LATERAL (
    SELECT pic.thumbnail FROM product_picture AS pp JOIN picture AS pic ON pic.id = pp.picture_id
    WHERE pp.product_id = listed.id ORDER BY pp.position, pic.id LIMIT 1) AS shown ON true
ORDER BY place"""

TOTAL = """
SELECT count(*) FROM (
    SELECT 1 FROM product AS p WHERE {condition} LIMIT %(at_most)s) AS passing"""


@dataclass(frozen=True, slots=True)
class ListedProduct:
    """A product and the thumbnail (JPEG) of its first picture; None without a picture."""

    product: Product
    thumbnail: bytes | None


@dataclass(frozen=True, slots=True)
class ProductList:
    """A page of a list, and how many products the whole list has."""

    products: tuple[ListedProduct, ...]
    total: Count


def read(
    connection: Connection, clause: FilterClause, order: ListOrder, first: int, count: int
) -> ProductList:
    """`count` products that pass the filter, after the `first` ones; counted up to COUNT_LIMIT."""
    condition = clause.condition or "true"
    sql = LISTED.format(fields=FIELDS, order=ORDERS[order], condition=condition)
    rows = connection.exec_driver_sql(sql, {**clause.values, "first": first, "count": count})
    listed = tuple(ListedProduct(product_from_row(row), _bytes(row.thumbnail)) for row in rows)
    at_most = {"at_most": COUNT_LIMIT + 1}
    total = connection.exec_driver_sql(
        TOTAL.format(condition=condition), {**clause.values, **at_most}
    ).scalar_one()
    return ProductList(listed, Count(min(total, COUNT_LIMIT), total > COUNT_LIMIT))


def _bytes(value: Any) -> bytes | None:
    return None if value is None else bytes(value)
