"""SQL of the parts of a build that did not answer: the nearest of their rows, by range of ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from app.db.queries import nearest, pgvector_index
from app.types import Build, BuildPart, Model, Vector

# Only rows that the build holds: those changed since are in its delta. Bits are looked up inside
# their range only, whatever the order in which PostgreSQL tests conditions.
NEAREST = """
SELECT e.picture_id, e.vec{cast} <=> CAST(%(q)s AS halfvec{size}) AS distance
FROM embedding AS e
WHERE e.model_id = {model} AND e.picture_id BETWEEN %(first)s AND %(last)s
    AND pg_visible_in_snapshot(e.changed_in, CAST(%(snapshot)s AS pg_snapshot))
    AND e.picture_id NOT IN (SELECT unnest(CAST(%(excluded)s AS bigint[]))){named}{passing}
ORDER BY {order} LIMIT %(n)s"""

EXACT_ORDER = "(e.vec <=> CAST(%(q)s AS halfvec)) + 0, e.picture_id"
INDEX_ORDER = "e.vec::halfvec({dim}) <=> CAST(%(q)s AS halfvec({dim}))"

BY_BITS = """
    AND CASE WHEN e.picture_id BETWEEN %(origin)s AND %(origin)s - 1 + 8 * length(%(bits)s::bytea)
        THEN get_bit(%(bits)s::bytea, e.picture_id - %(origin)s) = 1 ELSE false END"""
BY_IDS = " AND e.picture_id = ANY(CAST(%(ids)s AS bigint[]))"


@dataclass(frozen=True, slots=True)
class PassingIds:
    """The picture ids of a part that pass a filter: in bits, the lowest of a byte first, of the ids
    from `origin` on, or as a list."""

    bits: bytes | None
    origin: int = 0
    ids: Sequence[int] = ()


def nearest_of_part(
    connection: Connection,
    model: Model,
    build: Build,
    part: BuildPart,
    query: Vector,
    n: int,
    *,
    passing: PassingIds | None,
    excluded: Sequence[int],
    exact_rows: int,
) -> tuple[NDArray[np.int64], float | None]:
    """The ids of the `n` nearest rows of a part, and the cosine similarity at and below which more
    were left out; None if none were.

    `query` has shape (dim,); `excluded` ids are passed over, and where `passing` is given all but
    those. A part of more than `exact_rows` rows is searched by pgvector's index if there is one,
    the others exactly.
    """
    index = None
    if part.rows > exact_rows:
        index = pgvector_index.measured(connection, model.id)
    parts = {"cast": "", "size": "", "named": "", "order": EXACT_ORDER}
    if index is not None:
        pgvector_index.set_probes(connection, index.probes)
        size = f"({model.dim})"
        parts = {
            "cast": f"::halfvec{size}", "size": size, "named": f" AND e.{index.condition}",
            "order": INDEX_ORDER.format(dim=model.dim),
        }  # fmt: skip
    values: dict[str, Any] = {
        "q": nearest.literal(query), "first": part.first, "last": part.last,
        "snapshot": build.snapshot, "excluded": list(excluded), "n": n,
    }  # fmt: skip
    condition = ""
    if passing is not None:
        condition = BY_IDS if passing.bits is None else BY_BITS
        values |= {"bits": passing.bits, "origin": passing.origin, "ids": list(passing.ids)}
    sql = NEAREST.format(model=model.id, passing=condition, **parts)
    rows = connection.exec_driver_sql(sql, values).all()
    ids = np.array([row.picture_id for row in rows], np.int64)
    if len(rows) < n:
        # Only an exact statement knows that there are no more.
        return ids, None if index is None else 1.0
    return ids, 1.0 - max(row.distance for row in rows)
