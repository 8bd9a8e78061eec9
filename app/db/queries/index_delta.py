"""SQL of a build's delta: embeddings changed since its snapshot, merged with FAISS nominees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from app.db.queries.nearest import (
    EVERYTHING,
    PRODUCT_PAGE,
    TOLERANCE,
    Candidates,
    FilterClause,
    array_literal,
    candidates_from_rows,
    fetch_rows,
)
from app.types import Build, Model, Vector


def delta_rows(connection: Connection, build: Build, at_most: int) -> int:
    """How many embeddings changed since the snapshot of a build; counting stops at `at_most`."""
    sql = """SELECT count(*) FROM (
        SELECT FROM embedding WHERE model_id = :model
            AND (changed_in >= pg_snapshot_xmax(CAST(:snapshot AS pg_snapshot))
                OR changed_in = ANY(CAST(:in_progress AS xid8[])))
        LIMIT :at_most) AS delta"""
    values = {
        "model": build.model_id,
        "snapshot": build.snapshot,
        "in_progress": build.in_progress,
        "at_most": at_most,
    }
    return int(connection.execute(text(sql), values).scalar_one())


def deleted_rows(connection: Connection, build: Build, delta: int) -> int:
    """How many rows of a build are no longer in the table; `delta` counts its whole delta."""
    sql = "SELECT count(*) FROM embedding WHERE model_id = :model"
    live = connection.execute(text(sql), {"model": build.model_id}).scalar_one()
    return max(0, build.rows - (int(live) - delta))


def has_future_stamps(connection: Connection, model_id: int) -> bool:
    """Whether embeddings carry a `changed_in` that this cluster has not reached, as a restored copy
    of another cluster may; no build holds such rows, so they stay in every delta."""
    sql = """SELECT EXISTS (SELECT FROM embedding WHERE model_id = :model
        AND changed_in >= pg_snapshot_xmax(pg_current_snapshot()))"""
    return bool(connection.execute(text(sql), {"model": model_id}).scalar_one())


NEAR_FACTOR = 4
"""Products are looked up for this many times as many of the nearest pictures as are asked for. An
index of compressed vectors may nominate hundreds more, only to find the nearest among them."""

BUILD_COUNTS = """, (SELECT count(*) FROM delta) AS delta_rows,
    (SELECT max(distance) FROM near) AS near_to,
    (SELECT count(*) FROM nominee) AS unchanged, (
        SELECT distance FROM nominee ORDER BY distance
        OFFSET greatest((SELECT count(*) FROM nominee) * CAST(%(known)s AS bigint)
            / cardinality(CAST(%(nominated)s AS bigint[])), 1) - 1 LIMIT 1
    ) AS reach"""
"""Columns of HIT_COUNTS: the rows of the delta; the distance of the last row whose products are
looked up; the nominees that did not change, whether they pass the filter or not; and the distance
of the last one of these that the build claims to know."""

# A nominee counts only in the version that the build read; every row changed since is searched
# exactly. A snapshot does not see a transaction that is at or above its xmax or was in progress.
# Each half is written so that the B-tree on changed_in finds it, and orders by changed_in so that
# no plan reads the whole table.
BUILD_AND_DELTA = """
WITH delta AS MATERIALIZED (
    (SELECT e.picture_id, e.vec <=> CAST(%(q)s AS halfvec) AS distance
    FROM embedding AS e
    WHERE e.model_id = {model}
        AND e.changed_in >= pg_snapshot_xmax(CAST(%(snapshot)s AS pg_snapshot))
    ORDER BY e.changed_in LIMIT %(allowed)s)
  UNION ALL
    (SELECT e.picture_id, e.vec <=> CAST(%(q)s AS halfvec)
    FROM embedding AS e
    WHERE e.model_id = {model} AND e.changed_in = ANY(CAST(%(in_progress)s AS xid8[]))
    ORDER BY e.changed_in LIMIT %(allowed)s)
), {moved}{over}nominee AS MATERIALIZED (
    SELECT e.picture_id, e.vec <=> CAST(%(q)s AS halfvec) AS distance
    FROM embedding AS e
    WHERE e.model_id = {model} AND e.picture_id = ANY({nominated})
        AND pg_visible_in_snapshot(e.changed_in, CAST(%(snapshot)s AS pg_snapshot))
), hit AS MATERIALIZED (
    SELECT e.picture_id, e.distance, false AS fresh FROM nominee AS e WHERE true{shown_nominee}
  UNION ALL (
    SELECT e.picture_id, e.distance, true
    FROM (SELECT * FROM delta{but}{also}{besides}) AS e WHERE true{shown}
    ORDER BY e.distance, e.picture_id LIMIT %(n)s)
), near AS MATERIALIZED (
    SELECT * FROM hit ORDER BY distance, picture_id LIMIT CAST(%(n)s AS bigint) * {near_factor}
)""".replace("{near_factor}", str(NEAR_FACTOR))

NOMINATED = "CAST(%(nominated)s AS bigint[])"
UNREAD = f"CAST((SELECT {NOMINATED}) AS bigint[])"
"""The nominees for BUILD_AND_DELTA (`nominated`), and the same for a statement that is planned anew
each time: the planner estimates each of thousands by itself, if it can read them."""

PASSED_OVER = {
    "over": """over AS MATERIALIZED (
    SELECT e.picture_id, e.vec <=> CAST(%(q)s AS halfvec) AS distance
    FROM (
        SELECT DISTINCT pp.picture_id
        FROM unnest(CAST(%(passed)s AS bigint[])) AS passed(id)
        JOIN product_picture AS pp ON pp.picture_id = passed.id
        WHERE pp.product_id NOT IN (SELECT unnest(CAST(%(excluded)s AS bigint[])))
    ) AS pp JOIN embedding AS e ON e.model_id = {model} AND e.picture_id = pp.picture_id
), """,
    "but": """ WHERE picture_id NOT IN (
        SELECT unnest(CAST(%(passed)s AS bigint[]) || CAST(%(hidden)s AS bigint[])))""",
    "besides": " UNION ALL SELECT * FROM over",
}
"""Placeholders of BUILD_AND_DELTA where the build has passed over the pictures of excluded products
and the hidden ones: none of these takes a place among the rows of the delta, and those that other
products show too are compared exactly."""

NOTHING_PASSED_OVER = dict.fromkeys(PASSED_OVER, "")


def passed_parts(model_id: int, *, passes: bool) -> dict[str, str]:
    """The placeholders of PASSED_OVER, empty if the build passed over nothing."""
    if not passes:
        return NOTHING_PASSED_OVER
    return PASSED_OVER | {"over": PASSED_OVER["over"].replace("{model}", str(model_id))}


def nearest(
    connection: Connection,
    model: Model,
    build: Build,
    query: Vector,
    nominated: NDArray[np.int64],
    seen_to: float | None,
    *,
    n: int,
    k: int,
    excluded: Sequence[int],
    hidden: Sequence[int] = (),
    passed: Sequence[int] = (),
    known: int | None,
    max_delta_rows: int,
    filter_clause: FilterClause = EVERYTHING,
) -> tuple[Candidates, int]:
    """The nearest products among the unchanged nominees of a build and its delta.

    `nominated` are picture ids, int64, shape (m,); `seen_to` is the cosine distance (0 to 2) from
    which on the build nominated none, None if it nominated all. A build with compressed vectors
    knows no such distance, but claims that its `known` nearest rows are among the nominees: the
    exact distance of the last of them takes the place of `seen_to`.

    The `n` nearest rows of the delta are added. None of the pictures in `passed`, those of excluded
    products, and in `hidden` is nominated; those of them that other products show are added too.
    Pictures count only if a product that passes the filter shows them. Also returns the number of
    rows in the delta, counted up to `max_delta_rows` + 1; if it exceeds `max_delta_rows`, the
    candidates must not be used.
    """
    sql = (BUILD_AND_DELTA + PRODUCT_PAGE).format(
        model=model.id, build=BUILD_COUNTS, near="near", nominated=UNREAD, **filter_clause.parts,
        **passed_parts(model.id, passes=bool(passed or hidden)),
    )  # fmt: skip
    values = bound_values(build, nominated, n, max_delta_rows) | dict(filter_clause.values)
    values["passed"] = array_literal(passed)
    rows = fetch_rows(connection, sql, query, k, excluded, hidden, known=known, **values)
    return merged_candidates(rows, len(nominated), seen_to, known, n), rows[0].delta_rows


def bound_values(
    build: Build, nominated: NDArray[np.int64], n: int, max_delta_rows: int
) -> dict[str, Any]:
    """The values bound in BUILD_AND_DELTA, except the query vector."""
    return {
        "nominated": array_literal(nominated.tolist()),
        "snapshot": build.snapshot,
        "in_progress": build.in_progress,
        "n": n,
        "allowed": max_delta_rows + 1,
    }


def merged_candidates(
    rows: Sequence[Any], nominated: int, seen_to: float | None, known: int | None, n: int
) -> Candidates:
    """Candidates from rows of BUILD_AND_DELTA with HIT_COUNTS; `nominated` counts the nominees.
    Where the products of all rows were looked up, `near_to` is None.

    The nominees that changed since the build have no distance. Of the `known` nearest as large a
    share is taken to have changed as of all nominees.
    """
    held, fresh, farthest = rows[0].held, rows[0].fresh, rows[0].farthest
    if seen_to is None:
        ends = []
    elif known is None:
        ends = [seen_to - TOLERANCE]
    else:
        ends = [rows[0].reach if rows[0].unchanged * known >= nominated > 0 else 0.0]
    if fresh >= n:
        ends.append(farthest)
    if rows[0].near_to is not None and held + fresh > NEAR_FACTOR * n:
        ends.append(rows[0].near_to)
    vanished = nominated - held
    return candidates_from_rows(rows, min(ends, default=None), held + fresh, vanished)
