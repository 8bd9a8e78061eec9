"""SQL of filter values: which of them no product has, and the values of a column."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

COLUMNS = ("brand", "category", "colour")
"""Columns whose values are looked up without case through an index on (lower(value), value)."""

UNKNOWN = """
SELECT typed.value FROM unnest(CAST(:values AS text[])) WITH ORDINALITY AS typed(value, place)
WHERE NOT EXISTS (SELECT FROM product AS p WHERE lower(p.{column}) = lower(typed.value))
ORDER BY place"""

# Each step of the recursion is one probe of the index, however many products have the value.
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


def unknown(connection: Connection, column: str, values: Sequence[str]) -> list[str]:
    """Those of the values of one of COLUMNS that no product has in any case."""
    rows = connection.execute(text(UNKNOWN.format(column=column)), {"values": list(values)})
    return list(rows.scalars())


def values(connection: Connection, column: str, most: int) -> list[str]:
    """The values of one of COLUMNS in the order of the database, at most `most`."""
    return list(connection.execute(text(VALUES.format(column=column)), {"most": most}).scalars())
