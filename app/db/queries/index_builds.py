"""SQL of `index_build`: the life of each FAISS index, and which one a search may use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, text

from app.types import Build

CLUSTER = """(SELECT system_identifier FROM pg_control_system()) || '/' || (
    SELECT oid FROM pg_database WHERE datname = current_database())"""
"""Where a build's snapshot means something: this cluster, this database, not a restored copy."""


STAMPED_BY = """(
    SELECT concat_ws('/', stamp.oid, stamp.xmin, part.relfilenode, stamping.xmin)
    FROM pg_inherits AS tree JOIN pg_class AS part ON part.oid = tree.inhrelid
    JOIN pg_trigger AS stamp ON stamp.tgrelid = part.oid
        AND stamp.tgfoid = to_regprocedure('stamp_embedding()') AND stamp.tgenabled = 'A'
    JOIN pg_proc AS stamping ON stamping.oid = stamp.tgfoid
    WHERE tree.inhparent = to_regclass('embedding') AND part.relname = 'embedding_m' || {model})"""
"""Another value once the stamp was off or did something else, the partition detached or its table
rewritten: rows may have changed unstamped. Attaching makes a new trigger, enabling a new version of
its row."""


COLUMNS = """id, model_id, snapshot::text,
    coalesce((SELECT array_agg(x)::text FROM pg_snapshot_xip(snapshot) AS x), '{}') AS in_progress,
    kind, parameters, rows, sha256, size, recall_at_10, recall_at_50, recall_filtered,
    recall_sample, seconds,
    state, reason, finished_at"""


def begin(connection: Connection, model_id: int) -> int:
    """Record that a build begins; returns its id."""
    sql = f"""INSERT INTO index_build (model_id, cluster, stamped_by)
        VALUES (:model, {CLUSTER}, {STAMPED_BY.format(model=":model")}) RETURNING id"""
    return int(connection.execute(text(sql), {"model": model_id}).scalar_one())


def finish(connection: Connection, build_id: int, state: str, **figures: Any) -> Build | None:
    """Publish or reject a build, with what was measured of it; None if it is not `building`."""
    if "parameters" in figures:
        figures["parameters"] = json.dumps(figures["parameters"])
    types = {"snapshot": "pg_snapshot", "parameters": "jsonb"}
    assigned = "".join(
        f", {name} = CAST(:{name} AS {types[name]})" if name in types else f", {name} = :{name}"
        for name in figures
    )
    sql = f"""UPDATE index_build SET state = :state, finished_at = clock_timestamp(){assigned}
        WHERE id = :id AND state = 'building' RETURNING {COLUMNS}"""
    values = {"id": build_id, "state": state, **figures}
    row = connection.execute(text(sql), values).one_or_none()
    return _build(row) if row else None


def is_published(connection: Connection, sha256: str) -> bool:
    """Whether a published build is in the file with this sha256."""
    sql = "SELECT EXISTS (SELECT FROM index_build WHERE sha256 = :sha256 AND state = 'published')"
    return bool(connection.execute(text(sql), {"sha256": sha256}).scalar_one())


def retire_older(connection: Connection, model_id: int, keep: int) -> list[str]:
    """Retire all but the newest `keep` published builds; returns the sha256 no build needs now."""
    sql = """
        WITH old AS (
            UPDATE index_build SET state = 'retired' WHERE id IN (
                SELECT id FROM index_build WHERE model_id = :model AND state = 'published'
                ORDER BY id DESC OFFSET :keep)
            RETURNING id, sha256)
        SELECT sha256 FROM old WHERE NOT EXISTS (
            SELECT FROM index_build AS b
            WHERE b.sha256 = old.sha256 AND b.state = 'published' AND b.id NOT IN (
                SELECT id FROM old))"""
    return list(connection.execute(text(sql), {"model": model_id, "keep": keep}).scalars())


def retire_foreign(connection: Connection) -> int:
    """Retire builds of another database, as a restored one brings along; returns how many.

    Their files are not this database's to delete, so they are forgotten.
    """
    sql = f"""UPDATE index_build SET state = 'retired', reason = 'built in another database',
            sha256 = NULL
        WHERE state IN ('published', 'building') AND cluster <> {CLUSTER}"""
    return connection.execute(text(sql)).rowcount


def retire(connection: Connection, build_id: int, reason: str) -> None:
    """Take a build out of use."""
    sql = "UPDATE index_build SET state = 'retired', reason = :reason WHERE id = :id"
    connection.execute(text(sql), {"id": build_id, "reason": reason})


def record_file(connection: Connection, build_id: int, sha256: str) -> None:
    """Say which file a build is about to write."""
    sql = "UPDATE index_build SET sha256 = :sha256 WHERE id = :id AND state = 'building'"
    connection.execute(text(sql), {"id": build_id, "sha256": sha256})


def reject_unfinished(connection: Connection, reason: str) -> None:
    """Reject builds still `building`; only for the holder of the builder's lock."""
    sql = """UPDATE index_build SET state = 'rejected', reason = :reason,
        finished_at = clock_timestamp() WHERE state = 'building'"""
    connection.execute(text(sql), {"reason": reason})


def unneeded_files(connection: Connection, newest: int = 100) -> list[str]:
    """The sha256 of files that recent builds made or may have left and no published one needs."""
    sql = """SELECT DISTINCT sha256 FROM (
            SELECT sha256 FROM index_build WHERE state IN ('retired', 'rejected')
            ORDER BY id DESC LIMIT :newest) AS b
        WHERE sha256 IS NOT NULL AND NOT EXISTS (
            SELECT FROM index_build AS p WHERE p.sha256 = b.sha256 AND p.state = 'published')"""
    return list(connection.execute(text(sql), {"newest": newest}).scalars())


USABLE = (
    """SELECT {columns} FROM index_build
    WHERE model_id = {model} AND state = 'published' AND cluster = {cluster}
        AND stamped_by = """
    + STAMPED_BY
)


def usable(connection: Connection, model_id: int) -> list[Build]:
    """The published builds that this transaction's snapshot sees, of this cluster, newest first."""
    found = USABLE.format(columns=COLUMNS, model=":model", cluster=CLUSTER)
    sql = f"{found} ORDER BY id DESC"
    return [_build(row) for row in connection.execute(text(sql), {"model": model_id})]


def published(connection: Connection) -> list[Build]:
    """The published builds of this database, of every model, oldest first."""
    sql = f"""SELECT {COLUMNS} FROM index_build
        WHERE state = 'published' AND cluster = {CLUSTER} ORDER BY id"""
    return [_build(row) for row in connection.execute(text(sql))]


def latest(connection: Connection, limit: int) -> list[Build]:
    """The newest builds in any state, newest first."""
    sql = f"SELECT {COLUMNS} FROM index_build ORDER BY id DESC LIMIT :limit"
    return [_build(row) for row in connection.execute(text(sql), {"limit": limit})]


def _build(row: Row[Any]) -> Build:
    return Build(**row._asdict())


CHUNK_BYTES = 4 << 20
"""Small enough that neither side holds much of a file, large enough to be few statements."""


def save_file(connection: Connection, build_id: int, file: Path) -> None:
    """Store a build's file; in the transaction that publishes it, so both are seen together."""
    sql = text("INSERT INTO index_chunk (build_id, number, data) VALUES (:build, :number, :data)")
    with file.open("rb") as source:
        for number, data in enumerate(iter(lambda: source.read(CHUNK_BYTES), b"")):
            connection.execute(sql, {"build": build_id, "number": number, "data": data})


def read_file(connection: Connection, build_id: int) -> Iterator[bytes]:
    """The pieces of a build's file in order; none where it was not stored."""
    sql = text("SELECT data FROM index_chunk WHERE build_id = :build AND number = :number")
    number = 0
    while True:
        data = connection.execute(sql, {"build": build_id, "number": number}).scalar()
        if data is None:
            return
        yield bytes(data)
        number += 1


def drop_file(connection: Connection, build_id: int) -> None:
    """Forget the file of one build."""
    connection.execute(text("DELETE FROM index_chunk WHERE build_id = :id"), {"id": build_id})


def drop_retired_files(connection: Connection) -> None:
    """Forget the files of builds that are not published any more."""
    connection.execute(
        text(
            "DELETE FROM index_chunk AS c USING index_build AS b"
            " WHERE b.id = c.build_id AND b.state <> 'published'"
        )
    )
