"""Full-text search in the catalogue, and a picture of given products: the first or the nearest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from app.db.queries import nearest
from app.db.queries.nearest import FilterClause
from app.types import Hit, Model, Vector

EXCLUDED_WORDS = re.compile(r'(?:^|(?<=\s))-(?P<word>"[^"]*"|[^\s"]+)')
"""A word, or a phrase in quotes, after a minus sign."""

# The query is normalised like the column `words`: without accents, in the configuration `simple`.
# Products with all the words rank before those with some; a product with an excluded word or phrase
# is left out.
ASKED = r"""
WITH asked AS (
    SELECT websearch_to_tsquery('simple', plain) AS every,
        (SELECT string_agg('''' || replace(word, '''', '''''') || '''', ' | ')
            FROM unnest(tsvector_to_array(to_tsvector('simple', plain))) AS word
            WHERE word !~ E'\\\\')::tsquery AS any,
        (SELECT array_agg(phraseto_tsquery('simple', regexp_replace(
                normalize(phrase, NFKD), '[\u0300-\u036F]', '', 'g')))
            FROM unnest(CAST(%(unwanted)s AS text[])) AS phrase) AS unwanted
    FROM (SELECT regexp_replace(
        normalize(%(words)s, NFKD), '[\u0300-\u036F]', '', 'g') AS plain) AS given
)"""

HAS_WORDS = """(p.words @@ asked.any OR p.words @@ asked.every)
        AND NOT EXISTS (SELECT FROM unnest(asked.unwanted) AS phrase WHERE p.words @@ phrase)"""
"""Condition on `product AS p, asked`: the product has a word that was asked for, and no excluded
one."""

SEARCHABLE = """EXISTS (
            SELECT FROM product_picture AS shown JOIN embedding AS e USING (picture_id)
            WHERE shown.product_id = p.id AND e.model_id = {model})"""
"""Condition on `product AS p`: it has a picture with an embedding under a model."""

MATCHING_PRODUCTS = (
    ASKED
    + """, found AS (
    SELECT p.id, p.words @@ asked.every AS whole, ts_rank_cd(p.words, asked.any, 1) AS rank
    FROM product AS p, asked
    WHERE """
    + HAS_WORDS
    + """
        AND p.id <> ALL(CAST(%(excluded)s AS bigint[]))
        AND """
    + SEARCHABLE
    + """
        AND {condition}
    ORDER BY whole DESC, rank DESC, p.id LIMIT %(k)s
)
SELECT found.id, pp.picture_id
FROM found JOIN LATERAL (
    SELECT shown.picture_id
    FROM product_picture AS shown JOIN embedding AS e USING (picture_id)
    WHERE shown.product_id = found.id AND e.model_id = {model}
    ORDER BY shown.position LIMIT 1) AS pp ON true
ORDER BY found.whole DESC, found.rank DESC, found.id"""
)


def find(
    connection: Connection,
    model: Model,
    words: str,
    filter_clause: FilterClause,
    *,
    k: int,
    excluded: Sequence[int],
) -> list[tuple[int, int]]:
    """Products that match any of the words, best first: pairs of product id and picture id.

    The picture is the product's first one that has an embedding. At most `k` products, none of
    those in `excluded` (ids).
    """
    sql = MATCHING_PRODUCTS.format(model=model.id, condition=filter_clause.condition or "true")
    values = asked_values(words) | {"k": k, "excluded": list(excluded), **filter_clause.values}
    return [(row[0], row[1]) for row in connection.exec_driver_sql(sql, values)]


def asked_values(words: str) -> dict[str, Any]:
    """The values bound in ASKED."""
    unwanted = [match["word"].strip('"') for match in EXCLUDED_WORDS.finditer(words)]
    return {"words": EXCLUDED_WORDS.sub(" ", words), "unwanted": unwanted}


def first_pictures(
    connection: Connection, model: Model, products: Sequence[int]
) -> list[tuple[int, int]]:
    """Pairs of product id and picture id, for given products: each with its first picture that has
    an embedding, as in `find`."""
    sql = """SELECT DISTINCT ON (shown.product_id) shown.product_id, shown.picture_id
        FROM product_picture AS shown JOIN embedding AS e USING (picture_id)
        WHERE shown.product_id = ANY(CAST(%(ids)s AS bigint[])) AND e.model_id = %(model)s
        ORDER BY shown.product_id, shown.position"""
    values = {"ids": list(products), "model": model.id}
    return [(row[0], row[1]) for row in connection.exec_driver_sql(sql, values)]


def nearest_hits(
    connection: Connection, model: Model, query: Vector, products: Sequence[int]
) -> list[Hit]:
    """The nearest picture to a vector of each of these products (ids), nearest first."""
    filter_clause = FilterClause(
        "p.id = ANY(CAST(%(filter_0)s AS bigint[]))", {"filter_0": list(products)}
    )
    candidates = nearest.exact_filtered(
        connection, model, query, filter_clause, k=len(products), excluded=()
    )
    assert candidates is not None
    return list(candidates.hits)
