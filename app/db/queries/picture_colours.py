"""SQL of `picture_colours`: storing the visible colours of pictures, and ranking by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from app.db.queries import nearest
from app.db.queries.nearest import FilterClause
from app.types import Colours, Hit, Model, Vector

STORE = """
INSERT INTO picture_colours (picture_id, version, main, main_share, shares)
SELECT kept.id, c.version, c.main, c.main_share, c.shares
FROM unnest(
    CAST(%(ids)s AS bigint[]), CAST(%(version)s AS smallint[]), CAST(%(main)s AS smallint[]),
    CAST(%(main_share)s AS smallint[]), CAST(%(shares)s AS bytea[])
) AS c (id, version, main, main_share, shares)
JOIN (
    SELECT id FROM picture WHERE id = ANY(CAST(%(ids)s AS bigint[])) ORDER BY id FOR KEY SHARE
) AS kept USING (id)
ON CONFLICT (picture_id) DO UPDATE SET version = excluded.version, main = excluded.main,
    main_share = excluded.main_share, shares = excluded.shares"""

WITHOUT = """
SELECT p.id, p.thumbnail FROM picture AS p
WHERE p.id > %(after)s AND NOT EXISTS (
    SELECT FROM picture_colours AS c WHERE c.picture_id = p.id AND c.version >= %(version)s)
ORDER BY p.id LIMIT %(limit)s"""

SHARES = """
SELECT string_agg(int8send(picture_id), '') AS ids, string_agg(shares, '') AS shares
FROM (
    SELECT picture_id, shares FROM picture_colours
    WHERE picture_id = ANY(CAST(%(ids)s AS bigint[])) AND main_share > 0
        AND version >= %(version)s) AS known"""
"""In one value: the driver reads it many times faster than one row per picture."""

NOMINATE = """
WITH coloured AS MATERIALIZED (
    SELECT c.picture_id FROM unnest(CAST(%(mains)s AS smallint[])) AS asked (main)
    CROSS JOIN LATERAL (
        SELECT c.picture_id FROM picture_colours AS c
        WHERE c.main = asked.main AND c.main_share > 0
            AND c.picture_id <> ALL(CAST(%(hidden)s AS bigint[])){shown}
        ORDER BY c.main_share DESC, c.picture_id LIMIT %(n)s) AS c
)
SELECT DISTINCT ON (pp.product_id) pp.product_id, pp.picture_id,
    e.vec <=> CAST(%(q)s AS halfvec) AS distance
FROM coloured JOIN product_picture AS pp USING (picture_id){passing}
JOIN embedding AS e ON e.model_id = {model} AND e.picture_id = pp.picture_id
WHERE pp.product_id <> ALL(CAST(%(excluded)s AS bigint[]))
ORDER BY pp.product_id, distance, pp.picture_id"""
"""The pictures of a colour come from an index, so that the cost does not grow with the
catalogue."""

SHOWN = """
            AND EXISTS (
                SELECT FROM product_picture AS pp JOIN product AS p ON p.id = pp.product_id
                WHERE pp.picture_id = c.picture_id AND ({condition}))"""


def columns(key: str, colours: Sequence[tuple[Any, Colours]]) -> dict[str, list[Any]]:
    """Values of a statement for colours with their key: a list for each column, that of the keys
    under the name `key`."""
    return {
        key: [key for key, _ in colours],
        "version": [each.version for _, each in colours],
        "main": [each.main for _, each in colours],
        "main_share": [max(each.shares) for _, each in colours],
        "shares": [each.shares for _, each in colours],
    }


def store(connection: Connection, colours: Mapping[int, Colours]) -> None:
    """Store colours by picture id, for the pictures that still exist."""
    connection.exec_driver_sql(STORE, columns("ids", sorted(colours.items())))


def without(
    connection: Connection, version: int, after: int, limit: int
) -> list[tuple[int, bytes]]:
    """The first pictures with an id above `after` that have no colours of this version: id and
    thumbnail."""
    values = {"version": version, "after": after, "limit": limit}
    rows = connection.exec_driver_sql(WITHOUT, values)
    return [(row.id, bytes(row.thumbnail)) for row in rows]


def shares(
    connection: Connection, version: int, pictures: Sequence[int]
) -> dict[int, NDArray[np.float32]]:
    """The shares of the colours, (18,), 0 to 1, of those of these pictures (ids) that have any of
    this version."""
    values = {"ids": nearest.array_literal(pictures), "version": version}
    row = connection.exec_driver_sql(SHARES, values).one()
    if row.ids is None:
        return {}
    ids = np.frombuffer(row.ids, ">i8").tolist()
    found = np.frombuffer(row.shares, np.uint8).reshape(len(ids), -1).astype(np.float32) / 255
    return dict(zip(ids, found, strict=True))


def nominated(
    connection: Connection,
    model: Model,
    vector: Vector,
    mains: Sequence[int],
    filter_clause: FilterClause,
    *,
    n: int,
    excluded: Sequence[int],
    hidden: Sequence[int],
) -> list[Hit]:
    """Products that show one of the `n` pictures with most of each of these colours (numbers), of
    those whose largest share that is: each by the one nearest to a vector (dim,).

    The products pass the filter; those in `excluded` and the pictures in `hidden` (ids) are left
    out.
    """
    condition = filter_clause.condition
    shown = SHOWN.format(condition=condition) if condition else ""
    sql = NOMINATE.format(model=model.id, shown=shown, passing=filter_clause.parts["passing"])
    values = {
        "mains": list(mains), "n": n, "q": nearest.literal(vector),
        "excluded": nearest.array_literal(excluded),
        "hidden": nearest.array_literal(hidden), **filter_clause.values,
    }  # fmt: skip
    rows = connection.exec_driver_sql(sql, values)
    return [Hit(row.product_id, row.picture_id, row.distance) for row in rows]
