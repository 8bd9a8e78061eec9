"""Counts of the products that meet the conditions of a search, each condition by itself.

Each count stops at a limit, so that a condition that most of a large catalogue meets costs no more
than the limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from app.db.queries.full_text import HAS_WORDS, SEARCHABLE, WordQuery, asked_values
from app.db.queries.nearest import FilterClause
from app.types import Count, Model

COUNT_LIMIT = 10_000
"""Products up to which a count is exact."""

ANY_OF = "p.id = ANY(CAST(%(given)s AS bigint[]))"
"""Condition on `product AS p`: it is one of given ids."""


def count(
    connection: Connection,
    model: Model,
    filter_clause: FilterClause,
    words: WordQuery | None = None,
    *,
    at_most: int = COUNT_LIMIT,
    searchable: bool = True,
) -> Count:
    """The products that pass a filter and, with `words`, have any of them as in `full_text.find`.

    With `searchable` only products that have a picture with an embedding under the model. The count
    is exact up to `at_most`.
    """
    parts = [filter_clause.condition or "true"]
    values: dict[str, Any] = {**filter_clause.values, "at_most": at_most}
    if words is not None:
        parts.append(HAS_WORDS)
        values |= asked_values(words)
    if searchable:
        parts.append(SEARCHABLE.format(model=model.id))
    return _count(connection, parts, values)


def count_given(
    connection: Connection,
    model: Model,
    filter_clause: FilterClause,
    words: WordQuery | None,
    ids: Sequence[int],
) -> int:
    """How many of given products (ids) `count` counts."""
    if not ids:
        return 0
    condition = f"{ANY_OF} AND ({filter_clause.condition or 'true'})"
    given = FilterClause(condition, {"given": list(ids), **filter_clause.values})
    return count(connection, model, given, words, at_most=len(ids)).products


def matching_ids(
    connection: Connection,
    model: Model,
    filter_clause: FilterClause,
    words: WordQuery,
    *,
    at_most: int,
    excluded: Sequence[int],
) -> list[int]:
    """Ids of the products that `count` counts, without `excluded` ones; any `at_most` of them."""
    condition = filter_clause.condition or "true"
    sql = f"""
    SELECT p.id FROM product AS p
    WHERE {condition} AND {HAS_WORDS} AND {SEARCHABLE.format(model=model.id)}
        AND p.id <> ALL(CAST(%(excluded)s AS bigint[]))
    LIMIT %(at_most)s"""
    values = {"at_most": at_most, "excluded": list(excluded)}
    values |= {**filter_clause.values, **asked_values(words)}
    return list(connection.exec_driver_sql(sql, values).scalars())


def _count(connection: Connection, parts: Sequence[str], values: Mapping[str, Any]) -> Count:
    sql = f"""
    SELECT count(*) FROM (
        SELECT FROM product AS p WHERE {" AND ".join(parts)} LIMIT %(at_most)s + 1) AS met"""
    products = int(connection.exec_driver_sql(sql, dict(values)).scalar_one())
    return Count(min(products, values["at_most"]), more=products > values["at_most"])
