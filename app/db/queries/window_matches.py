"""SQL of the windows of a photo: the nearest picture of each, in one statement."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg.rows import namedtuple_row
from sqlalchemy import Connection

from app.db import halfvec_arrays
from app.db.halfvec_arrays import HalfvecArray
from app.db.queries import index_builds
from app.db.queries.nearest import array_literal
from app.db.queries.single_statement import numbered
from app.types import Build, Model, Vector, Vectors

# Each picture is read once, with the numbers of the windows that it was nominated for. Every window
# is also compared with all embeddings changed since the build, or with all there are if no build is
# given. An embedding that was replaced since its nomination counts with its present vector.
NEAREST = """
WITH fresh AS MATERIALIZED (
    SELECT e.vec, e.vec <=> CAST(%(whole)s AS halfvec) AS whole
    FROM ({changed}) AS e
    WHERE EXISTS (SELECT FROM product_picture AS pp WHERE pp.picture_id = e.picture_id)
), held AS MATERIALIZED (
    SELECT nominee.numbers, e.vec, e.vec <=> CAST(%(whole)s AS halfvec) AS whole
    FROM unnest(CAST(%(pictures)s AS bigint[]), CAST(%(numbers)s AS text[]))
        AS nominee (picture_id, numbers)
    JOIN embedding AS e ON e.model_id = {model} AND e.picture_id = nominee.picture_id
    WHERE EXISTS (SELECT FROM product_picture AS pp WHERE pp.picture_id = e.picture_id)
), compared AS (
    SELECT own.number, held.whole,
        held.vec <=> (CAST(%(queries)s AS halfvec[]))[own.number] AS distance
    FROM held CROSS JOIN LATERAL unnest(CAST(held.numbers AS bigint[])) AS own (number)
  UNION ALL
    SELECT asked.number, fresh.whole, fresh.vec <=> asked.q
    FROM unnest(CAST(%(queries)s AS halfvec[])) WITH ORDINALITY AS asked (q, number)
    CROSS JOIN fresh
    WHERE (SELECT count(*) FROM fresh) < CAST(%(allowed)s AS bigint)
), best AS (
    SELECT number, min(distance) AS distance, {gain} AS gain
    FROM compared GROUP BY number
)
SELECT (SELECT count(*) FROM fresh) AS fresh, {current}
    string_agg(int8send(number), '' ORDER BY number) AS numbers,
    string_agg(float8send(distance), '' ORDER BY number) AS distances,
    string_agg(float8send(gain), '' ORDER BY number) AS gains
FROM best"""

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

GAINS = {False: "min(distance - whole)", True: "(min(ARRAY[distance, distance - whole]))[2]"}
"""The best gain of a window, or that of its nearest picture (True)."""

CURRENT = "(SELECT id FROM model WHERE active) AS active, ({newest}) AS newest,"
"""Columns by which to see whether a build is the newest one of the active model."""

Best = tuple[NDArray[np.float64], NDArray[np.float64]]
"""The cosine similarity of each window to the nearest picture, (n,), and its best gain, (n,)."""


def best_similarities(
    connection: Connection,
    model: Model,
    build: Build | None,
    vectors: Vectors,
    nominated: NDArray[np.int64],
    whole: Vector,
    *,
    max_fresh: int,
    at_best: bool = False,
) -> Best | None:
    """The cosine similarity of each vector to the nearest picture that a product shows, (n,), and
    the greatest gain, or with `at_best` that of the nearest picture: how much more similar it is to
    a picture than the vector `whole`, (n,).

    `nominated` are picture ids, int64 (n, m), -1 where there is none. Embeddings that `build` does
    not hold are compared too; without a build, all are. None if those are more than `max_fresh`. A
    window without any picture has the similarity -1 and the gain -2.
    """
    _register_vectors(connection)
    values = _values(build, vectors, nominated, whole, max_fresh)
    changed = (ALL if build is None else CHANGED).format(model=model.id)
    sql = NEAREST.format(model=model.id, changed=changed, current="", gain=GAINS[at_best])
    row = connection.exec_driver_sql(sql, values).one()
    return None if row.fresh > max_fresh else _best(row, len(vectors))


def best_by_build(
    connection: psycopg.Connection[Any],
    model: Model,
    build: Build,
    vectors: Vectors,
    nominated: NDArray[np.int64],
    whole: Vector,
    *,
    cluster: str,
    max_fresh: int,
    at_best: bool = False,
) -> Best | None:
    """The same by a build, in a statement of its own; None also if the model is not the active one
    or the build not the newest usable one of a `cluster`."""
    values = _values(build, vectors, nominated, whole, max_fresh) | {"cluster": cluster}
    sql, names = _statement(model.id, at_best)
    with psycopg.RawCursor(connection, row_factory=namedtuple_row) as cursor:
        rows: Any = cursor.execute(
            sql, [values[name] for name in names], prepare=True, binary=True
        ).fetchall()
    [row] = rows
    if (row.active, row.newest) != (model.id, index_builds.identity(build)):
        return None
    return None if row.fresh > max_fresh else _best(row, len(vectors))


@lru_cache(maxsize=64)
def _statement(model_id: int, at_best: bool) -> tuple[str, tuple[str, ...]]:
    """The statement of `best_by_build`, and the names of its values in order."""
    newest = index_builds.NEWEST.format(model=model_id, cluster="%(cluster)s")
    changed, current = CHANGED.format(model=model_id), CURRENT.format(newest=newest)
    return numbered(
        NEAREST.format(model=model_id, changed=changed, current=current, gain=GAINS[at_best])
    )


def _values(
    build: Build | None,
    vectors: Vectors,
    nominated: NDArray[np.int64],
    whole: Vector,
    max_fresh: int,
) -> dict[str, Any]:
    """The values bound in NEAREST."""
    windows, columns = np.nonzero(nominated >= 0)
    pictures, inverse = np.unique(nominated[windows, columns], return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    by_picture = np.split(windows[order] + 1, np.flatnonzero(np.diff(inverse[order])) + 1)
    values = {
        "queries": HalfvecArray(vectors),
        "pictures": array_literal(pictures.tolist()),
        "numbers": [array_literal(each.tolist()) for each in by_picture] if len(pictures) else [],
        "allowed": str(max_fresh + 1),
        "whole": HalfVector(whole),
    }
    if build is not None:
        values |= {"snapshot": build.snapshot, "in_progress": build.in_progress}
    return values


def _best(row: Any, windows: int) -> Best:
    similarities, gains = np.full(windows, -1.0), np.full(windows, -2.0)
    if row.numbers is not None:
        places = np.frombuffer(row.numbers, ">i8") - 1
        similarities[places] = 1 - np.frombuffer(row.distances, ">f8")
        gains[places] = -np.frombuffer(row.gains, ">f8")
    return similarities, gains


def _register_vectors(connection: Connection) -> None:
    """Let the driver send vectors in binary, once per connection: as text they take far longer."""
    if "vectors" not in connection.info:
        driver_connection = connection.connection.driver_connection
        assert isinstance(driver_connection, psycopg.Connection)
        register_vector(driver_connection)
        halfvec_arrays.register(driver_connection)
        connection.info["vectors"] = True
