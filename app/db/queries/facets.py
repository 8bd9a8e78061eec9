"""SQL of facets: values of columns and attributes, ranges of years and prices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import Connection, text

from app.db.queries.filter_sql import CASELESS
from app.db.queries.nearest import FilterClause

# Values that a filter takes for one are one, in the spelling of most products.
VALUES = """
SELECT (array_agg(value ORDER BY products DESC, value COLLATE "C"))[1] AS spelling,
    sum(products)::bigint AS products, count(*) OVER ()
FROM (
    SELECT {column} AS value, count(*) AS products FROM product WHERE {column} <> ''
    GROUP BY {column}) AS spelled
GROUP BY {compared} ORDER BY products DESC, spelling LIMIT :most"""

BOUNDS = """
SELECT count(*) AS products, min(year) AS first_year, max(year) AS last_year,
    min(price) AS lowest, max(price) AS highest
FROM product"""

# Each end is the first or last entry of an index.
ALL_BOUNDS = """
SELECT {products} AS products,
    (SELECT min(year) FROM product) AS first_year, (SELECT max(year) FROM product) AS last_year,
    (SELECT min(price) FROM product) AS lowest, (SELECT max(price) FROM product) AS highest"""

# A list counts for each of its members; objects have no value to filter by.
ATTRIBUTES = """
SELECT key, value, count(DISTINCT p.id) AS products
FROM ({products}) AS p
CROSS JOIN LATERAL jsonb_each(
    CASE jsonb_typeof(p.attributes) WHEN 'object' THEN p.attributes ELSE '{{}}' END)
        AS pair(key, json)
CROSS JOIN LATERAL jsonb_array_elements(
    CASE jsonb_typeof(json) WHEN 'array' THEN json ELSE jsonb_build_array(json) END)
        AS member(single)
CROSS JOIN LATERAL (SELECT single #>> '{{}}') AS plain(value)
WHERE jsonb_typeof(single) NOT IN ('array', 'object', 'null') AND value <> ''
    AND (CAST(:names AS text[]) IS NULL OR key = ANY(CAST(:names AS text[])))
GROUP BY key, value ORDER BY key, products DESC, value"""

AMONG = "SELECT id, attributes FROM product WHERE id = ANY(CAST(:ids AS bigint[]))"

SAMPLE = """
SELECT s.id, s.attributes
FROM (SELECT min(id) AS first, max(id) - min(id) AS span FROM product) AS ids
CROSS JOIN generate_series(0, {stretches} - 1) AS stretch
CROSS JOIN LATERAL (
    SELECT id, attributes FROM product
    WHERE id >= ids.first + ids.span * stretch / {stretches}
        AND id <= ids.first + ids.span * (stretch + 1) / {stretches}
    ORDER BY id LIMIT {each}) AS s"""
"""Products from equal stretches of the ids, read by the primary key."""

STRETCHES, EACH = 20, 100

FEW_VALUED = """
WITH sample AS MATERIALIZED ({sample}), counted AS ({attributes})
SELECT key FROM counted CROSS JOIN (SELECT count(DISTINCT id) AS products FROM sample) AS total
GROUP BY key, total.products
HAVING count(*) BETWEEN 2 AND :most_values
    AND sum(counted.products) >= :least_share * total.products
ORDER BY sum(counted.products) DESC, key"""

AMONG_IDS = "id = ANY(CAST(:ids AS bigint[]))"


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
    rows = connection.execute(text(_values_sql(column)), {"most": most}).all()
    distinct = rows[0][2] if rows else 0
    return FacetValues(tuple((row[0], row[1]) for row in rows), distinct - len(rows))


def values_among(connection: Connection, column: str, ids: Sequence[int], most: int) -> FacetValues:
    """The `most` most frequent values of a text column among given products (ids)."""
    sql = _values_sql(column).replace("WHERE", f"WHERE {AMONG_IDS} AND")
    rows = connection.execute(text(sql), {"most": most, "ids": list(ids)}).all()
    distinct = rows[0][2] if rows else 0
    return FacetValues(tuple((row[0], row[1]) for row in rows), distinct - len(rows))


def passing(connection: Connection, filter_clause: FilterClause, at_most: int) -> list[int]:
    """Ids of the first `at_most` products that pass a filter."""
    rows = connection.exec_driver_sql(
        f"""SELECT p.id FROM product AS p WHERE {filter_clause.condition or "true"}
        ORDER BY p.id LIMIT %(at_most)s""",
        {**filter_clause.values, "at_most": at_most},
    )
    return [row.id for row in rows]


def _values_sql(column: str) -> str:
    compared = "lower(value)" if column in CASELESS else "value"
    return VALUES.format(column=column, compared=compared)


def attributes_among(
    connection: Connection, names: Sequence[str], ids: Sequence[int], most: int
) -> dict[str, FacetValues]:
    """The `most` most frequent values of each attribute among given products (ids), by name; an
    attribute without values is left out."""
    rows = connection.execute(
        text(ATTRIBUTES.format(products=AMONG)), {"ids": list(ids), "names": list(names)}
    )
    counts: dict[str, list[tuple[str, int]]] = {}
    for name, value, products in rows:
        counts.setdefault(name, []).append((value, products))
    return {
        name: FacetValues(tuple(pairs[:most]), max(len(pairs) - most, 0))
        for name, pairs in counts.items()
    }


def few_valued_attributes(
    connection: Connection, *, most_values: int, least_share: float
) -> list[str]:
    """The attributes that at least a share of the products has, with 2 to `most_values` different
    values, most frequent first; found in up to 2,000 products from all over the catalogue."""
    sample = SAMPLE.format(stretches=STRETCHES, each=EACH)
    rows = connection.execute(text(FEW_VALUED.format(sample=sample, attributes=ATTRIBUTES.format(
        products="SELECT * FROM sample"))), {
        "names": None, "most_values": most_values, "least_share": least_share,
    })  # fmt: skip
    return [row[0] for row in rows]


def bounds_among(connection: Connection, ids: Sequence[int]) -> FacetRange:
    """The ranges over given products (ids)."""
    sql = f"{BOUNDS} WHERE {AMONG_IDS}"
    return FacetRange(*connection.execute(text(sql), {"ids": list(ids)}).one())


def bounds(connection: Connection, products: int | None = None) -> FacetRange:
    """The ranges over all products; with their number if it is known, else they are counted."""
    number = "(SELECT count(*) FROM product)" if products is None else str(products)
    return FacetRange(*connection.execute(text(ALL_BOUNDS.format(products=number))).one())


def sample_ids(connection: Connection, count: int) -> list[int]:
    """Ids of about `count` products from all over the catalogue, and from nowhere else than its
    primary key; fewer where ids are missing."""
    sample = SAMPLE.format(stretches=STRETCHES, each=count // STRETCHES)
    return list(connection.execute(text(f"SELECT id FROM ({sample}) AS sample")).scalars())
