"""SQL of `index_build` and `index_chunk`: states and files of builds, and which build is usable."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, text

from app.types import Build

CLUSTER = """(SELECT system_identifier FROM pg_control_system()) || '/' || (
    SELECT oid FROM pg_database WHERE datname = current_database())"""
"""Identifies cluster and database: only there is the snapshot of a build valid."""

STAMPED_BY = """(
    SELECT concat_ws('/', stamp.oid, stamp.xmin, part.relfilenode, stamping.xmin)
    FROM pg_inherits AS tree JOIN pg_class AS part ON part.oid = tree.inhrelid
    JOIN pg_trigger AS stamp ON stamp.tgrelid = part.oid
        AND stamp.tgfoid = to_regprocedure('stamp_embedding()') AND stamp.tgenabled = 'A'
    JOIN pg_proc AS stamping ON stamping.oid = stamp.tgfoid
    WHERE tree.inhparent = to_regclass('embedding') AND part.relname = 'embedding_m' || {model})"""
"""A value that changes whenever rows of the partition may have changed without a stamp: the trigger
was off or replaced, the partition detached, its table rewritten. Attaching creates a new trigger;
enabling writes a new version of its catalogue row (xmin)."""

COLUMNS = """id, model_id, snapshot::text,
    coalesce((SELECT array_agg(x)::text FROM pg_snapshot_xip(snapshot) AS x), '{}') AS in_progress,
    kind, parameters, rows, sha256, size, recall_at_10, recall_at_50, recall_filtered,
    recall_sample, seconds,
    state, reason, finished_at"""

USABLE = (
    """SELECT {columns} FROM index_build
    WHERE model_id = {model} AND state = 'published' AND cluster = {cluster}
        AND stamped_by = """
    + STAMPED_BY
)

NEWEST = (
    USABLE.replace("{columns}", "concat_ws(' ', id, sha256, snapshot::text)")
    + " ORDER BY id DESC LIMIT 1"
)
"""The newest usable build, as `identity` writes it."""

CHUNK_BYTES = 4 << 20
"""Size of the pieces of a file: limits memory on both sides without many statements."""

PART_CHUNKS = 1 << 20
"""The numbers of the pieces of a part begin at its own number times this: up to 4 TB a part, and
2,000 parts."""

FILES = """coalesce((
    SELECT array_agg(part ->> 'sha256')
    FROM jsonb_array_elements({build}.parameters -> 'parts') AS part), ARRAY[{build}.sha256])"""
"""The sha256 of the files of a build: of its parts, or its own. `{build}` names the table."""


def begin(connection: Connection, model_id: int) -> int:
    """Record that a build begins; returns its id."""
    sql = f"""INSERT INTO index_build (model_id, cluster, stamped_by)
        VALUES (:model, {CLUSTER}, {STAMPED_BY.format(model=":model")}) RETURNING id"""
    return int(connection.execute(text(sql), {"model": model_id}).scalar_one())


def finish(connection: Connection, build_id: int, state: str, **figures: Any) -> Build | None:
    """Set the final state of a build and its figures (columns); None if it is not `building`."""
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
    """Whether a published build uses the file with this sha256."""
    sql = f"""SELECT EXISTS (SELECT FROM index_build AS b
        WHERE b.state = 'published' AND :sha256 = ANY({FILES.format(build="b")}))"""
    return bool(connection.execute(text(sql), {"sha256": sha256}).scalar_one())


def retire_older(connection: Connection, model_id: int, keep: int) -> list[str]:
    """Retire all but the newest `keep` published builds; returns the sha256 of files now unused."""
    sql = f"""
        WITH old AS (
            UPDATE index_build SET state = 'retired' WHERE id IN (
                SELECT id FROM index_build WHERE model_id = :model AND state = 'published'
                ORDER BY id DESC OFFSET :keep)
            RETURNING id, sha256, parameters)
        SELECT DISTINCT file FROM old, unnest({FILES.format(build="old")}) AS file
        WHERE NOT EXISTS (
            SELECT FROM index_build AS b
            WHERE file = ANY({FILES.format(build="b")}) AND b.state = 'published' AND b.id NOT IN (
                SELECT id FROM old))"""
    return list(connection.execute(text(sql), {"model": model_id, "keep": keep}).scalars())


def retire_foreign(connection: Connection) -> int:
    """Retire the builds of another database, which a restore brings along; returns their number.

    Their files belong to the other database: their names are cleared so that they are not deleted.
    """
    sql = f"""UPDATE index_build SET state = 'retired', reason = 'built in another database',
            sha256 = NULL, parameters = parameters - 'parts'
        WHERE state IN ('published', 'building') AND cluster <> {CLUSTER}"""
    return connection.execute(text(sql)).rowcount


def retire(connection: Connection, build_id: int, reason: str) -> None:
    """Retire one build."""
    sql = "UPDATE index_build SET state = 'retired', reason = :reason WHERE id = :id"
    connection.execute(text(sql), {"id": build_id, "reason": reason})


def record_file(connection: Connection, build_id: int, sha256: str) -> None:
    """Record the file that a build is about to write, so that a later build can delete it."""
    sql = "UPDATE index_build SET sha256 = :sha256 WHERE id = :id AND state = 'building'"
    connection.execute(text(sql), {"id": build_id, "sha256": sha256})


def record_part(connection: Connection, build_id: int, part: Mapping[str, Any]) -> None:
    """The same for a part: the fields of a `BuildPart` without its number."""
    sql = """UPDATE index_build SET parameters = jsonb_set(parameters, '{parts}',
            coalesce(parameters -> 'parts', '[]') || CAST(:part AS jsonb))
        WHERE id = :id AND state = 'building'"""
    connection.execute(text(sql), {"id": build_id, "part": json.dumps(part)})


def reject_unfinished(connection: Connection, reason: str) -> None:
    """Reject all builds in the state `building`; the caller must hold the builder lock."""
    sql = """UPDATE index_build SET state = 'rejected', reason = :reason,
        finished_at = clock_timestamp() WHERE state = 'building'"""
    connection.execute(text(sql), {"reason": reason})


def unneeded_files(connection: Connection, newest: int = 100) -> list[str]:
    """The sha256 of unused files: of the `newest` retired or rejected builds, used by no published
    one."""
    sql = f"""SELECT DISTINCT file FROM (
            SELECT sha256, parameters FROM index_build WHERE state IN ('retired', 'rejected')
            ORDER BY id DESC LIMIT :newest) AS b, unnest({FILES.format(build="b")}) AS file
        WHERE file IS NOT NULL AND NOT EXISTS (
            SELECT FROM index_build AS p
            WHERE p.state = 'published' AND file = ANY({FILES.format(build="p")}))"""
    return list(connection.execute(text(sql), {"newest": newest}).scalars())


def identity(build: Build) -> str:
    """A text that tells a build from every other one. Its id does not: a server that was rolled
    back gives it out again, and transaction numbers too."""
    return f"{build.id} {build.sha256} {build.snapshot}"


def usable(connection: Connection, model_id: int) -> list[Build]:
    """The usable builds of a model: published, of this cluster, stamps intact; newest first."""
    builds = USABLE.format(columns=COLUMNS, model=":model", cluster=CLUSTER)
    sql = f"{builds} ORDER BY id DESC"
    return [_build(row) for row in connection.execute(text(sql), {"model": model_id})]


def published(connection: Connection) -> list[Build]:
    """The published builds of all models of this database, oldest first."""
    sql = f"""SELECT {COLUMNS} FROM index_build
        WHERE state = 'published' AND cluster = {CLUSTER} ORDER BY id"""
    return [_build(row) for row in connection.execute(text(sql))]


def latest(connection: Connection, limit: int) -> list[Build]:
    """The newest builds in any state, newest first."""
    sql = f"SELECT {COLUMNS} FROM index_build ORDER BY id DESC LIMIT :limit"
    return [_build(row) for row in connection.execute(text(sql), {"limit": limit})]


def _build(row: Row[Any]) -> Build:
    return Build(**row._asdict())


def save_file(connection: Connection, build_id: int, file: Path, part: int | None = None) -> None:
    """Store the file of a build, or of a part of it, in the transaction that publishes it."""
    sql = text("INSERT INTO index_chunk (build_id, number, data) VALUES (:build, :number, :data)")
    with file.open("rb") as source:
        pieces = iter(lambda: source.read(CHUNK_BYTES), b"")
        for number, data in enumerate(pieces, _first_chunk(part)):
            connection.execute(sql, {"build": build_id, "number": number, "data": data})


def read_file(connection: Connection, build_id: int, part: int | None = None) -> Iterator[bytes]:
    """The pieces of the file of a build, or of a part of it, in order; none if it is not stored."""
    sql = text("SELECT data FROM index_chunk WHERE build_id = :build AND number = :number")
    number = _first_chunk(part)
    while True:
        data = connection.execute(sql, {"build": build_id, "number": number}).scalar()
        if data is None:
            return
        yield bytes(data)
        number += 1


def drop_file(connection: Connection, build_id: int, part: int | None = None) -> None:
    """Delete the stored file of one build, or of a part of it."""
    first = _first_chunk(part)
    values = {"id": build_id, "first": first, "last": first + PART_CHUNKS - 1}
    sql = "DELETE FROM index_chunk WHERE build_id = :id AND number BETWEEN :first AND :last"
    connection.execute(text(sql), values)


def _first_chunk(part: int | None) -> int:
    return (part or 0) * PART_CHUNKS


def drop_retired_files(connection: Connection) -> None:
    """Delete the stored files of builds that are not published."""
    connection.execute(
        text(
            "DELETE FROM index_chunk AS c USING index_build AS b"
            " WHERE b.id = c.build_id AND b.state <> 'published'"
        )
    )
