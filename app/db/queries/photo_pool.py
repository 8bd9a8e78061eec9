"""What the catalogue knows of the products nearest to a photo: their categories and their words."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from app.db.queries import full_text
from app.db.queries.full_text import WordQuery

CATEGORIES = """
SELECT id, category FROM product
WHERE id = ANY(CAST(%(ids)s AS bigint[])) AND category <> ''"""

SHARES = """
SELECT w.product_id, avg(CASE WHEN w.words @@ term THEN 1.0 ELSE 0.0 END)::float8 AS share
FROM product_words AS w CROSS JOIN unnest(CAST(%(terms)s AS tsquery[])) AS term
WHERE w.product_id = ANY(CAST(%(ids)s AS bigint[])) AND w.language = %(language)s
    AND NOT coalesce(w.words @@ CAST(%(unwanted)s AS tsquery), false)
GROUP BY w.product_id"""

UNWANTED = """
SELECT w.product_id FROM product_words AS w
WHERE w.product_id = ANY(CAST(%(ids)s AS bigint[])) AND w.language = %(language)s
    AND w.words @@ CAST(%(unwanted)s AS tsquery)"""


def categories(connection: Connection, ids: Sequence[int]) -> dict[int, str]:
    """The category of each of these products (ids) that has one."""
    return {row[0]: row[1] for row in connection.exec_driver_sql(CATEGORIES, {"ids": list(ids)})}


def with_unwanted_words(
    connection: Connection, query: WordQuery, ids: Sequence[int]
) -> frozenset[int]:
    """Those of these products (ids) that have a word which the query excludes."""
    if not query.unwanted:
        return frozenset()
    values = full_text.term_values(query) | {"ids": list(ids)}
    return frozenset(connection.exec_driver_sql(UNWANTED, values).scalars())


def word_shares(connection: Connection, query: WordQuery, ids: Sequence[int]) -> dict[int, float]:
    """The share (above 0, at most 1) of the words that each of these products (ids) has.

    Products without any of the words, and those with an excluded word, are left out. A word of a
    colour or category that a product has in its brand only does not count.
    """
    values = full_text.term_values(query) | {"ids": list(ids)}
    rows = connection.exec_driver_sql(SHARES, values)
    return {row.product_id: row.share for row in rows if row.share > 0}
