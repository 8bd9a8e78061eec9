"""SQL of filter values: the stored spellings of a typed value, and the values of a column."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

COLUMNS = ("brand", "category", "colour")
"""Columns whose values are looked up without case through an index on (lower(value), value)."""

# Each step of the recursion is one probe of the index, however many products have the value.
SPELLINGS = """
SELECT typed.value AS typed, spelling.value
FROM unnest(CAST(:values AS text[])) AS typed(value) CROSS JOIN LATERAL (
    WITH RECURSIVE spelling AS (
        (SELECT p.{column} AS value FROM product AS p WHERE lower(p.{column}) = lower(typed.value)
        ORDER BY p.{column} LIMIT 1)
      UNION ALL
        SELECT (SELECT p.{column} FROM product AS p
            WHERE lower(p.{column}) = lower(typed.value) AND p.{column} > spelling.value
            ORDER BY p.{column} LIMIT 1)
        FROM spelling WHERE spelling.value IS NOT NULL
    )
    SELECT value FROM spelling WHERE value IS NOT NULL) AS spelling"""

# The codes of products (`product_words`) find a sku written otherwise.
SKUS = """
SELECT typed.value AS typed, p.sku
FROM unnest(CAST(:values AS text[])) AS typed(value)
JOIN product_words AS w ON w.words @@ CAST(
    '''#' || replace(product_code(typed.value), '''', '''''') || '''' AS tsquery)
JOIN product AS p ON p.id = w.product_id AND lower(p.sku) = lower(typed.value)"""

STORED_SKUS = "SELECT sku FROM product WHERE sku = ANY(CAST(:values AS text[]))"

VALUES = """
WITH RECURSIVE each AS (
    (SELECT {column} AS value, 1 AS number FROM product WHERE {column} > ''
    ORDER BY {column} LIMIT 1)
  UNION ALL
    SELECT (SELECT p.{column} FROM product AS p WHERE p.{column} > each.value
        ORDER BY p.{column} LIMIT 1), number + 1
    FROM each WHERE value IS NOT NULL AND number < :most
)
SELECT value FROM each WHERE value IS NOT NULL"""


def spellings(
    connection: Connection, column: str, values: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """How products write each value of one of COLUMNS, in any case; () if none has it."""
    found: dict[str, list[str]] = {value: [] for value in values}
    rows = connection.execute(text(SPELLINGS.format(column=column)), {"values": list(values)})
    for typed, stored in rows:
        found[typed].append(stored)
    return {typed: tuple(dict.fromkeys(stored)) for typed, stored in found.items()}


def skus(connection: Connection, values: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """How products write each sku; one that is stored as typed is meant as it is."""
    stored = set(connection.execute(text(STORED_SKUS), {"values": list(values)}).scalars())
    found = {value: [value] if value in stored else [] for value in values}
    others = [value for value in values if value not in stored]
    if others:
        for typed, sku in connection.execute(text(SKUS), {"values": others}):
            found[typed].append(sku)
    return {typed: tuple(dict.fromkeys(each)) for typed, each in found.items()}


def values(connection: Connection, column: str, most: int) -> list[str]:
    """The values of one of COLUMNS in the order of the database, at most `most`."""
    return list(connection.execute(text(VALUES.format(column=column)), {"most": most}).scalars())
