"""What the catalogue knows of the products nearest to a photo: their categories and their words."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from app.db.queries import full_text
from app.db.queries.nearest import FilterClause
from app.types import Model

CATEGORIES = """
SELECT id, category FROM product
WHERE id = ANY(CAST(%(ids)s AS bigint[])) AND category <> ''"""

MAX_WORDS = 12
"""Words of a query that are looked up one by one; further ones are ignored."""


def categories(connection: Connection, ids: Sequence[int]) -> dict[int, str]:
    """The category of each of these products (ids) that has one."""
    return {row[0]: row[1] for row in connection.exec_driver_sql(CATEGORIES, {"ids": list(ids)})}


def word_shares(
    connection: Connection, model: Model, words: str, ids: Sequence[int]
) -> dict[int, float]:
    """The share (above 0, at most 1) of the words that each of these products (ids) has.

    Products without any of the words, and those with an excluded word, are left out.
    """
    among = FilterClause("p.id = ANY(CAST(%(among)s AS bigint[]))", {"among": list(ids)})

    def having(text: str) -> list[int]:
        pairs = full_text.find(connection, model, text, among, k=len(ids), excluded=())
        return [product for product, _ in pairs]

    any_word = having(words)
    single = full_text.EXCLUDED_WORDS.sub(" ", words).replace('"', " ").split()[:MAX_WORDS]
    if len(single) <= 1:
        return dict.fromkeys(any_word, 1.0)
    found = [set(having(word)) for word in single]
    known = [products for products in found if products]
    return {
        product: max(sum(product in products for products in known), 1) / max(len(known), 1)
        for product in any_word
    }
