"""SQL of the windows of a photo: the pictures to compare them with, in one statement."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.rows import namedtuple_row
from sqlalchemy import Connection

from app.db.queries import index_builds
from app.db.queries.fold_pictures import unpacked
from app.db.queries.nearest import array_literal
from app.db.queries.single_statement import numbered
from app.types import Build, Model

# The pictures that were nominated, and all embeddings changed since the build, or all there are if
# no build is given. An embedding that was replaced since its nomination has its present vector.
PICTURES = """
WITH fresh AS MATERIALIZED (
    SELECT e.picture_id, e.vec FROM ({changed}) AS e
    WHERE EXISTS (SELECT FROM product_picture AS pp WHERE pp.picture_id = e.picture_id)
), compared AS (
    SELECT e.picture_id, e.vec
    FROM unnest(CAST(%(pictures)s AS bigint[])) AS nominee (picture_id)
    JOIN embedding AS e ON e.model_id = {model} AND e.picture_id = nominee.picture_id
    WHERE EXISTS (SELECT FROM product_picture AS pp WHERE pp.picture_id = e.picture_id)
  UNION ALL
    SELECT picture_id, vec FROM fresh
    WHERE (SELECT count(*) FROM fresh) < CAST(%(allowed)s AS bigint)
)
SELECT (SELECT count(*) FROM fresh) AS fresh, {current}
    string_agg(halfvec_send(vec), '' ORDER BY picture_id) AS vectors
FROM compared"""

CHANGED = """
    (SELECT picture_id, vec FROM embedding WHERE model_id = {model}
        AND changed_in >= pg_snapshot_xmax(CAST(%(snapshot)s AS pg_snapshot))
    ORDER BY changed_in LIMIT %(allowed)s)
  UNION ALL
    (SELECT picture_id, vec FROM embedding WHERE model_id = {model}
        AND changed_in = ANY(CAST(%(in_progress)s AS xid8[]))
    ORDER BY changed_in LIMIT %(allowed)s)"""
"""The embeddings that a build does not hold; each half by the B-tree on changed_in."""

ALL = "SELECT picture_id, vec FROM embedding WHERE model_id = {model} LIMIT %(allowed)s"

CURRENT = "(SELECT id FROM model WHERE active) AS active, ({newest}) AS newest,"
"""Columns by which to see whether a build is the newest one of the active model."""


def pictures(
    connection: Connection,
    model: Model,
    build: Build | None,
    nominated: NDArray[np.int64],
    *,
    max_fresh: int,
) -> NDArray[np.float16] | None:
    """The vectors of pictures that a product shows, float16 (n, dim): of the `nominated` ones, ids
    of any shape with -1 where there is none, and of those that `build` does not hold; without a
    build, of all. None if those are more than `max_fresh`."""
    values = _values(build, nominated, max_fresh)
    changed = (ALL if build is None else CHANGED).format(model=model.id)
    sql = PICTURES.format(model=model.id, changed=changed, current="")
    row = connection.exec_driver_sql(sql, values).one()
    return None if row.fresh > max_fresh else unpacked(row.vectors or b"", model)


def pictures_by_build(
    connection: psycopg.Connection[Any],
    model: Model,
    build: Build,
    nominated: NDArray[np.int64],
    *,
    cluster: str,
    max_fresh: int,
) -> NDArray[np.float16] | None:
    """The same by a build, in a statement of its own; None also if the model is not the active one
    or the build not the newest usable one of a `cluster`."""
    values = _values(build, nominated, max_fresh) | {"cluster": cluster}
    sql, names = _statement(model.id)
    with psycopg.RawCursor(connection, row_factory=namedtuple_row) as cursor:
        rows: Any = cursor.execute(
            sql, [values[name] for name in names], prepare=True, binary=True
        ).fetchall()
    [row] = rows
    if (row.active, row.newest) != (model.id, index_builds.identity(build)):
        return None
    return None if row.fresh > max_fresh else unpacked(row.vectors or b"", model)


@lru_cache(maxsize=64)
def _statement(model_id: int) -> tuple[str, tuple[str, ...]]:
    """The statement of `pictures_by_build`, and the names of its values in order."""
    newest = index_builds.NEWEST.format(model=model_id, cluster="%(cluster)s")
    changed, current = CHANGED.format(model=model_id), CURRENT.format(newest=newest)
    return numbered(PICTURES.format(model=model_id, changed=changed, current=current))


def _values(build: Build | None, nominated: NDArray[np.int64], max_fresh: int) -> dict[str, Any]:
    """The values bound in PICTURES."""
    ids = np.unique(nominated[nominated >= 0])
    values = {"pictures": array_literal(ids.tolist()), "allowed": str(max_fresh + 1)}
    if build is not None:
        values |= {"snapshot": build.snapshot, "in_progress": build.in_progress}
    return values
