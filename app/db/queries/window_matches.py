"""SQL of the windows of a photo: the nearest picture of each, in one statement."""

from __future__ import annotations

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from sqlalchemy import Connection

from app.types import Build, Model, Vector, Vectors

# `nominee` are pairs of a window and a picture; every window is also compared with all embeddings
# changed since the build, or with all there are if no build is given. An embedding that was
# replaced since its nomination counts with its present vector.
NEAREST = """
WITH asked AS MATERIALIZED (
    SELECT number, q FROM unnest(CAST(%(queries)s AS halfvec[])) WITH ORDINALITY AS t(q, number)
), fresh AS MATERIALIZED (
    SELECT e.picture_id, e.vec FROM embedding AS e
    WHERE e.model_id = {model}{changed}
        AND EXISTS (SELECT FROM product_picture AS pp WHERE pp.picture_id = e.picture_id)
    LIMIT %(allowed)s
), compared AS (
    SELECT nominee.number, e.vec <=> asked.q AS distance,
        (e.vec <=> asked.q) - (e.vec <=> CAST(%(whole)s AS halfvec)) AS gain
    FROM unnest(CAST(%(numbers)s AS bigint[]), CAST(%(pictures)s AS bigint[]))
        AS nominee(number, picture_id)
    JOIN embedding AS e ON e.model_id = {model} AND e.picture_id = nominee.picture_id
    JOIN asked ON asked.number = nominee.number
    WHERE EXISTS (SELECT FROM product_picture AS pp WHERE pp.picture_id = e.picture_id)
  UNION ALL
    SELECT asked.number, fresh.vec <=> asked.q,
        (fresh.vec <=> asked.q) - (fresh.vec <=> CAST(%(whole)s AS halfvec))
    FROM asked CROSS JOIN fresh WHERE (SELECT count(*) FROM fresh) < %(allowed)s
)
SELECT number, min(distance) AS distance, (SELECT count(*) FROM fresh) AS fresh, min(gain) AS gain
FROM compared GROUP BY number"""

CHANGED = """
        AND (e.changed_in >= pg_snapshot_xmax(CAST(%(snapshot)s AS pg_snapshot))
            OR e.changed_in = ANY(CAST(%(in_progress)s AS xid8[])))"""


def best_similarities(
    connection: Connection,
    model: Model,
    build: Build | None,
    vectors: Vectors,
    nominated: NDArray[np.int64],
    whole: Vector,
    *,
    max_fresh: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """The cosine similarity of each vector to the nearest picture that a product shows, (n,), and
    the greatest gain: how much more similar it is to a picture than the vector `whole`, (n,).

    `nominated` are picture ids, int64 (n, m), -1 where there is none. Embeddings that `build` does
    not hold are compared too; without a build, all are. None if those are more than `max_fresh`. A
    window without any picture has the similarity -1 and the gain -2.
    """
    numbers, columns = np.nonzero(nominated >= 0)
    values = {
        "queries": [HalfVector(vector) for vector in vectors],
        "numbers": (numbers + 1).tolist(),
        "pictures": nominated[numbers, columns].tolist(),
        "allowed": max_fresh + 1,
        "whole": HalfVector(whole),
    }
    _register_vectors(connection)
    changed = ""
    if build is not None:
        changed = CHANGED
        values |= {"snapshot": build.snapshot, "in_progress": build.in_progress}
    sql = NEAREST.format(model=model.id, changed=changed)
    rows = connection.exec_driver_sql(sql, values).all()
    if rows and rows[0][2] > max_fresh:
        return None
    similarities, gains = np.full(len(vectors), -1.0), np.full(len(vectors), -2.0)
    for number, distance, _, gain in rows:
        similarities[number - 1], gains[number - 1] = 1 - distance, -gain
    return similarities, gains


def _register_vectors(connection: Connection) -> None:
    """Let the driver send vectors in binary, once per connection: as text they take far longer."""
    if "vectors" not in connection.info:
        driver_connection = connection.connection.driver_connection
        assert isinstance(driver_connection, psycopg.Connection)
        register_vector(driver_connection)
        connection.info["vectors"] = True
