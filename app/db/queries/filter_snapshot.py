"""SQL of a cached filter: the pictures that passed at one snapshot, and the changes since.

`product` and `product_picture` have the stamp `changed_in`, so a search finds the few pictures that
may have begun to pass since the list was read. Pictures that no longer pass stay on the list: each
search applies the filter to its hits anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from app.db.queries.nearest import FilterClause, array_literal
from app.types import Build

MAX_CHANGED_ROWS = 300
"""Changed products, and pictures of changed products, up to which a list is used. Above it, reading
a new list costs less than comparing the changes in every search."""

STAMP_VERSIONS = """(
    SELECT CASE WHEN count(*) = 2 THEN concat_ws(' ',
        string_agg(concat_ws('/', stamp.oid, stamp.xmin, stamping.xmin, stamped.relfilenode, (
            SELECT string_agg(concat_ws(':', field.attnum, field.xmin), ',' ORDER BY field.attnum)
            FROM pg_attribute AS field WHERE field.attrelid = stamped.oid AND field.attnum > 0)),
            ' ' ORDER BY stamped.oid),
        (SELECT oid FROM pg_database WHERE datname = current_database()),
        extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time()),
        extract(epoch FROM pg_postmaster_start_time())) END
    FROM pg_class AS stamped JOIN pg_trigger AS stamp ON stamp.tgrelid = stamped.oid
        AND stamp.tgfoid = to_regprocedure('stamp_row()') AND stamp.tgenabled = 'A'
    JOIN pg_proc AS stamping ON stamping.oid = stamp.tgfoid
    WHERE stamped.oid IN (to_regclass('product'), to_regclass('product_picture')))"""
"""A value that changes whenever rows may have changed without a stamp: a trigger was off or
replaced, a table was rewritten, its columns changed. It also differs between databases, and after a
restart or a crash, which may have lost commits; crash recovery in a running server does not change
its start time but resets its statistics. Null if a trigger is missing."""

READ_LIST = """
SELECT pg_current_snapshot()::text AS snapshot, {stamps} AS stamps, pg_is_in_recovery() AS standby,
    coalesce((SELECT array_agg(x)::text FROM pg_snapshot_xip(pg_current_snapshot()) AS x), '{{}}')
        AS in_progress,
    CASE WHEN NOT pg_is_in_recovery() AND {stamps} IS NOT NULL THEN (
        SELECT string_agg(int8send(pp.picture_id), '')
        FROM product AS p JOIN product_picture AS pp ON pp.product_id = p.id
        WHERE {condition}) END AS pictures"""

DISTANCE = "e.vec <=> CAST(%(q)s AS halfvec) AS distance"

# Each branch is ordered like its B-tree, so that no plan reads the whole table.
CHANGED_PICTURES = """turned AS MATERIALIZED (
    (SELECT id FROM product
    WHERE changed_in >= pg_snapshot_xmax(CAST(%(list_snapshot)s AS pg_snapshot))
    ORDER BY changed_in LIMIT {most} + 1)
  UNION ALL
    (SELECT id FROM product WHERE changed_in = ANY(CAST(%(list_in_progress)s AS xid8[]))
    ORDER BY changed_in LIMIT {most} + 1)
  UNION ALL
    (SELECT product_id FROM product_picture
    WHERE changed_in >= pg_snapshot_xmax(CAST(%(list_snapshot)s AS pg_snapshot))
    ORDER BY changed_in LIMIT {most} + 1)
  UNION ALL
    (SELECT product_id FROM product_picture
    WHERE changed_in = ANY(CAST(%(list_in_progress)s AS xid8[]))
    ORDER BY changed_in LIMIT {most} + 1)
), moved AS MATERIALIZED (
    SELECT e.picture_id, {value}
    FROM (
        SELECT DISTINCT pp.picture_id FROM turned
        JOIN product_picture AS pp ON pp.product_id = turned.id LIMIT {most} + 1) AS pp
    JOIN embedding AS e ON e.model_id = {model} AND e.picture_id = pp.picture_id
), """

# The snapshot of the list must not be newer than the one of the search: a newer list lacks rows
# that this search must still see.
USABLE = f"""(SELECT count(*) FROM turned) <= {MAX_CHANGED_ROWS}
    AND (SELECT count(*) FROM moved) <= {MAX_CHANGED_ROWS}
    AND {STAMP_VERSIONS} = %(list_stamps)s
    AND pg_snapshot_xmax(pg_current_snapshot())
        >= pg_snapshot_xmax(CAST(%(list_snapshot)s AS pg_snapshot))
    AND NOT EXISTS (
        SELECT FROM pg_snapshot_xip(pg_current_snapshot()) AS open
        WHERE pg_visible_in_snapshot(open, CAST(%(list_snapshot)s AS pg_snapshot)))"""


HELD_VECTORS = """
SELECT string_agg(int8send(e.picture_id) || halfvec_send(e.vec), '') FROM embedding AS e
WHERE e.model_id = {model} AND e.picture_id = ANY(CAST(%(ids)s AS bigint[]))
    AND pg_visible_in_snapshot(e.changed_in, CAST(%(snapshot)s AS pg_snapshot))"""

SAME_SERVER = f"SELECT NOT pg_is_in_recovery() AND {STAMP_VERSIONS} = %(list_stamps)s"
"""Whether this is the primary that a list was read from, and no row has changed unstamped."""

IDS_PER_READ = 4096
"""Embeddings that are read at a time: 4 MB of 512 dimensions."""


@dataclass(frozen=True, slots=True)
class FilterIdList:
    """The pictures that passed a filter at a snapshot: their ids, sorted, shape (n,), int64.

    `snapshot` and `in_progress` are as in `Build`; `stamps` is the value of STAMP_VERSIONS.
    """

    ids: NDArray[np.int64]
    snapshot: str
    in_progress: str
    stamps: str

    @property
    def values(self) -> dict[str, str]:
        """The values bound in CHANGED_PICTURES and USABLE, except the query vector."""
        return {
            "list_snapshot": self.snapshot,
            "list_in_progress": self.in_progress,
            "list_stamps": self.stamps,
        }


def template_parts(model_id: int, value: str = DISTANCE) -> dict[str, str]:
    """Placeholders of `index_delta.BUILD_AND_DELTA` that add pictures which may have begun to
    pass, each with a `value` of its embedding e: the second column of the delta.

    The nominees were on the list, so that all but a few still pass: only the products of the
    nearest ones are looked up, which applies the filter.
    """
    changed_pictures = CHANGED_PICTURES.format(model=model_id, most=MAX_CHANGED_ROWS, value=value)
    also = " UNION ALL SELECT * FROM moved"
    return {"moved": changed_pictures, "also": also, "shown_nominee": ""}


def read(connection: Connection, filter_clause: FilterClause) -> FilterIdList | None:
    """The pictures that pass now; None if later changes could not be detected.

    That is on a standby, whose snapshots do not list transactions in progress, and without stamps.
    """
    sql = READ_LIST.format(stamps=STAMP_VERSIONS, condition=filter_clause.condition)
    row = connection.exec_driver_sql(sql, dict(filter_clause.values)).one()
    if row.standby or row.stamps is None:
        return None
    ids = np.frombuffer(row.pictures or b"", dtype=">i8").astype(np.int64)
    return FilterIdList(np.unique(ids), row.snapshot, row.in_progress, row.stamps)


def held_vectors(
    connection: Connection,
    build: Build,
    id_list: FilterIdList,
    ids: NDArray[np.int64],
    dim: int,
) -> list[tuple[NDArray[np.int64], NDArray[np.float16]]] | None:
    """The embeddings of the pictures of a list (ids) that a build holds as they are now, in blocks:
    ids, (n,), and vectors, (n, dim). None from a server other than that of the list.

    What changes afterwards, no search takes from a build, so that they need not be read again.
    """
    if connection.exec_driver_sql(SAME_SERVER, id_list.values).scalar_one() is not True:
        return None
    sql = HELD_VECTORS.format(model=build.model_id)
    layout = np.dtype([("id", ">i8"), ("dim", ">u2"), ("unused", ">u2"), ("vec", ">f2", dim)])
    blocks = []
    for begin in range(0, len(ids), IDS_PER_READ):
        asked = array_literal(ids[begin : begin + IDS_PER_READ].tolist())
        values = {"ids": asked, "snapshot": build.snapshot}
        packed = connection.exec_driver_sql(sql, values).scalar_one()
        rows = np.frombuffer(packed or b"", layout)
        blocks.append((rows["id"].astype(np.int64), rows["vec"].astype(np.float16)))
    return blocks
