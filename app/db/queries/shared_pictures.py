"""SQL about pictures that very many products show, such as placeholders."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from app.db.queries.match_counts import COUNT_LIMIT
from app.db.queries.nearest import FilterClause
from app.types import Count, Model

SHOWN_BY = """
SELECT shown.picture_id, counted.products
FROM unnest(CAST(%(ids)s AS bigint[])) AS shown (picture_id)
CROSS JOIN LATERAL (
    SELECT count(*) AS products FROM (
        SELECT FROM product_picture AS pp WHERE pp.picture_id = shown.picture_id
        LIMIT %(limit)s + 1) AS few) AS counted
WHERE counted.products > %(most)s"""

ONLY_SHOWING = """
SELECT count(*) FROM (
    SELECT FROM product AS p
    WHERE ({condition}) AND p.id <> ALL(CAST(%(excluded)s AS bigint[]))
        AND EXISTS (
            SELECT FROM product_picture AS pp
            WHERE pp.product_id = p.id AND pp.picture_id = ANY(CAST(%(hidden)s AS bigint[])))
        AND NOT EXISTS (
            SELECT FROM product_picture AS pp JOIN embedding AS e USING (picture_id)
            WHERE pp.product_id = p.id AND e.model_id = {model}
                AND pp.picture_id <> ALL(CAST(%(hidden)s AS bigint[])))
    LIMIT %(limit)s + 1) AS few"""


def shown_by_more(connection: Connection, pictures: Sequence[int], most: int) -> dict[int, Count]:
    """How many products show each of these pictures (ids) that more than `most` show."""
    values = {"ids": list(pictures), "most": most, "limit": COUNT_LIMIT}
    rows = connection.exec_driver_sql(SHOWN_BY, values)
    return {row.picture_id: count(row.products) for row in rows}


def count_only_showing(
    connection: Connection,
    model: Model,
    filter_clause: FilterClause,
    hidden: Sequence[int],
    excluded: Sequence[int],
) -> Count:
    """The products that pass a filter and whose embedded pictures are all `hidden` (ids), without
    `excluded` ones (ids)."""
    sql = ONLY_SHOWING.format(condition=filter_clause.condition or "true", model=model.id)
    values = {"hidden": list(hidden), "excluded": list(excluded), "limit": COUNT_LIMIT}
    products = connection.exec_driver_sql(sql, values | dict(filter_clause.values)).scalar_one()
    return count(int(products))


def count(products: int) -> Count:
    """A number of products that was counted up to COUNT_LIMIT and one more."""
    return Count(min(products, COUNT_LIMIT), products > COUNT_LIMIT)
