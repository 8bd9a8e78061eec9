"""SQL of what runs changed: recorded in the transaction that changes it, read to undo a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from app.types import KeptRun, Model, PictureData

# Nothing in it depends on a session: numbers and text of jsonb have one form each.
STATE = """sha256(convert_to(jsonb_build_array(p.title, p.brand, p.category, p.colour, p.year,
    p.price, p.currency, p.attributes, (
        SELECT jsonb_agg(jsonb_build_array(encode(pic.sha256, 'hex'), pp.uri)
            ORDER BY pp.position, pp.picture_id)
        FROM product_picture AS pp JOIN picture AS pic ON pic.id = pp.picture_id
        WHERE pp.product_id = p.id))::text, 'UTF8'))"""
"""SQL: sha256 of all that a user sees of product p. It survives restores, unlike `changed_in`."""

RECORD_WRITES = f"""
WITH added AS (
    INSERT INTO product_history (run_id, sku, before, after)
    SELECT %(run)s, p.sku, CAST(new.before AS jsonb), {STATE}
    FROM unnest(CAST(%(skus)b AS text[]), CAST(%(befores)b AS text[])) AS new (sku, before)
    JOIN product AS p USING (sku)
    RETURNING pg_column_size(product_history.*) AS bytes)
UPDATE ingest_run SET history_bytes = history_bytes + (SELECT sum(bytes) FROM added)
WHERE id = %(run)s AND history_bytes >= 0 AND EXISTS (SELECT FROM added)"""

RECORD_DELETES = """
WITH deleted AS (
    INSERT INTO product_history (run_id, sku, before)
    SELECT %(run)s, p.sku,
        CAST(new.before AS jsonb) || jsonb_build_object('created_at', p.created_at)
    FROM unnest(CAST(%(skus)b AS text[]), CAST(%(befores)b AS text[])) AS new (sku, before)
    JOIN product AS p USING (sku)
    RETURNING pg_column_size(product_history.*) AS bytes)
UPDATE ingest_run SET history_bytes = history_bytes + (SELECT sum(bytes) FROM deleted)
WHERE id = %(run)s AND history_bytes >= 0 AND EXISTS (SELECT FROM deleted)"""

RECORD_PICTURES = """
WITH gone AS (
    SELECT id, sha256, width, height, thumbnail FROM picture
    WHERE id = ANY(CAST(%(ids)b AS bigint[])) AND NOT EXISTS (
        SELECT FROM product_picture AS pp WHERE pp.picture_id = picture.id)
), pictures AS (
    INSERT INTO picture_history (run_id, sha256, width, height, thumbnail)
    SELECT %(run)s, sha256, width, height, thumbnail FROM gone
    ON CONFLICT DO NOTHING
    RETURNING pg_column_size(picture_history.*) AS bytes
), vectors AS (
    INSERT INTO embedding_history (run_id, sha256, model_id, vec)
    SELECT %(run)s, gone.sha256, e.model_id, e.vec
    FROM gone JOIN embedding AS e ON e.picture_id = gone.id
    ON CONFLICT DO NOTHING
    RETURNING pg_column_size(embedding_history.*) AS bytes)
UPDATE ingest_run SET history_bytes = history_bytes
    + (SELECT coalesce(sum(bytes), 0) FROM pictures) + (SELECT coalesce(sum(bytes), 0) FROM vectors)
WHERE id = %(run)s AND history_bytes >= 0 AND EXISTS (SELECT FROM gone)"""


TABLES = ("product_history", "embedding_history", "picture_history")
"""In the order in which their rows are deleted."""

_KEPT_RUNS = """SELECT id, kind, source, state, report, started_at, history_bytes AS bytes
    FROM ingest_run"""


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """What a run did to one product.

    `before` has the changed columns as they were, or all of a deleted product; None: added.
    `after` is the STATE that the run left; None: deleted.
    """

    id: int
    run_id: int
    sku: str
    before: Mapping[str, Any] | None
    after: bytes | None


def record_writes(
    connection: Connection, run_id: int, before: Mapping[str, Mapping[str, Any] | None]
) -> None:
    """Record products that this transaction has written, by sku, as `HistoryRow.before`."""
    connection.exec_driver_sql(RECORD_WRITES, _rows(run_id, before))


def record_deletes(
    connection: Connection, run_id: int, before: Mapping[str, Mapping[str, Any]]
) -> None:
    """Record products that this transaction will delete, by sku, as `HistoryRow.before`."""
    connection.exec_driver_sql(RECORD_DELETES, _rows(run_id, before))


def record_pictures(connection: Connection, run_id: int, ids: Sequence[int]) -> None:
    """Keep those of these locked pictures that no product shows, with their embeddings."""
    connection.exec_driver_sql(RECORD_PICTURES, {"run": run_id, "ids": list(ids)})


def _rows(run_id: int, before: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Any]:
    values = [None if each is None else json.dumps(each) for each in before.values()]
    return {"run": run_id, "skus": list(before), "befores": values}


def rows_after(connection: Connection, run_id: int, after: int, limit: int) -> list[HistoryRow]:
    """Up to `limit` products that a run changed, with ids above `after`, in order."""
    sql = """SELECT id, sku, before, after FROM product_history
        WHERE run_id = :run AND id > :after ORDER BY id LIMIT :limit"""
    values = {"run": run_id, "after": after, "limit": limit}
    return [
        HistoryRow(
            row.id, run_id, row.sku, row.before, None if row.after is None else bytes(row.after)
        )
        for row in connection.execute(text(sql), values)
    ]


def lock_products(connection: Connection, skus: Sequence[str]) -> None:
    """Lock the products with these skus against writers without the write lock."""
    sql = "SELECT FROM product WHERE sku = ANY(CAST(:skus AS text[])) ORDER BY id FOR UPDATE"
    connection.execute(text(sql), {"skus": list(skus)})


def states(connection: Connection, skus: Sequence[str]) -> dict[str, bytes]:
    """The STATE of each stored product with one of these skus."""
    sql = f"""SELECT p.sku, {STATE} AS state FROM product AS p
        WHERE p.sku = ANY(CAST(:skus AS text[]))"""
    rows = connection.execute(text(sql), {"skus": list(skus)})
    return {row.sku: bytes(row.state) for row in rows}


def pictures(connection: Connection, sha256s: Sequence[bytes]) -> dict[bytes, PictureData]:
    """Those of these pictures that a run has kept, by sha256."""
    sql = """SELECT DISTINCT ON (sha256) sha256, width, height, thumbnail FROM picture_history
        WHERE sha256 = ANY(CAST(:sha256s AS bytea[])) ORDER BY sha256, run_id DESC"""
    rows = connection.execute(text(sql), {"sha256s": list(sha256s)})
    return {
        bytes(row.sha256): PictureData(
            bytes(row.sha256), row.width, row.height, bytes(row.thumbnail)
        )
        for row in rows
    }


def restore_embeddings(
    connection: Connection, models: Sequence[Model], picture_ids: Sequence[int]
) -> dict[int, int]:
    """Store the kept embeddings of these pictures under these models.

    Returns how many of the pictures have no embedding then, by model id.
    """
    if not picture_ids:
        return {}
    values = {"ids": list(picture_ids), "models": [model.id for model in models]}
    connection.execute(
        text(
            """INSERT INTO embedding (model_id, picture_id, vec)
            SELECT DISTINCT ON (kept.model_id, pic.id) kept.model_id, pic.id, kept.vec
            FROM picture AS pic JOIN embedding_history AS kept USING (sha256)
            WHERE pic.id = ANY(CAST(:ids AS bigint[]))
                AND kept.model_id = ANY(CAST(:models AS integer[]))
            ORDER BY kept.model_id, pic.id, kept.run_id DESC
            ON CONFLICT DO NOTHING"""
        ),
        values,
    )
    return {model.id: _count_missing(connection, model, picture_ids) for model in models}


def _count_missing(connection: Connection, model: Model, picture_ids: Sequence[int]) -> int:
    sql = f"""SELECT count(*) FROM unnest(CAST(:ids AS bigint[])) AS pic (id) WHERE NOT EXISTS (
        SELECT FROM embedding AS e WHERE e.model_id = {model.id:d} AND e.picture_id = pic.id)"""
    return int(connection.execute(text(sql), {"ids": list(picture_ids)}).scalar_one())


def restore_creation_times(connection: Connection, run_id: int, ids: Sequence[int]) -> None:
    """Give restored products the time at which they were first added (ids of history rows)."""
    sql = """UPDATE product AS p SET created_at = CAST(kept.before ->> 'created_at' AS timestamptz)
        FROM product_history AS kept
        WHERE kept.run_id = :run AND kept.id = ANY(CAST(:ids AS bigint[])) AND p.sku = kept.sku"""
    connection.execute(text(sql), {"run": run_id, "ids": list(ids)})


def kept_run(connection: Connection, run_id: int) -> KeptRun | None:
    """A run; None if there was no such run."""
    sql = f"{_KEPT_RUNS} WHERE id = :id"
    row = connection.execute(text(sql), {"id": run_id}).one_or_none()
    return None if row is None else KeptRun(**row._asdict())


def kept_runs(connection: Connection, limit: int) -> list[KeptRun]:
    """The last runs that can be undone, the newest first."""
    sql = f"{_KEPT_RUNS} WHERE history_bytes > 0 ORDER BY id DESC LIMIT :limit"
    rows = connection.execute(text(sql), {"limit": limit})
    return [KeptRun(**row._asdict()) for row in rows]


def size(connection: Connection, run_id: int) -> int:
    """The approximate number of bytes kept to undo a run; negative if it is forgotten."""
    sql = text("SELECT history_bytes FROM ingest_run WHERE id = :id")
    return int(connection.execute(sql, {"id": run_id}).scalar_one())


def expired_runs(connection: Connection, days: float, max_bytes: int) -> list[int]:
    """Runs with a history that began over `days` ago, or that exceed the bytes, newest counted
    first; and those marked as forgotten of which rows are left."""
    sql = """SELECT id FROM (
            SELECT id, started_at, history_bytes,
                sum(greatest(history_bytes, 0)) OVER (ORDER BY id DESC) AS newer
            FROM ingest_run) AS run
        WHERE CASE WHEN history_bytes > 0
            THEN newer > :bytes
                OR started_at < clock_timestamp() - make_interval(secs => :secs)
            ELSE EXISTS (SELECT FROM product_history AS kept WHERE kept.run_id = run.id)
                OR EXISTS (SELECT FROM picture_history AS kept WHERE kept.run_id = run.id) END
        ORDER BY id"""
    values = {"bytes": max_bytes, "secs": days * 86_400}
    return list(connection.execute(text(sql), values).scalars())


def forget(connection: Connection, run_id: int, table: str, limit: int) -> int:
    """Delete up to `limit` rows of a run from one of TABLES; returns their number."""
    assert table in TABLES
    sql = f"""DELETE FROM {table} WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM {table} WHERE run_id = :run LIMIT :limit))"""
    return connection.execute(text(sql), {"run": run_id, "limit": limit}).rowcount


def mark_forgotten(connection: Connection, run_id: int) -> None:
    """Record that nothing is kept of a run any more, nor of what others still write for it."""
    connection.execute(
        text("UPDATE ingest_run SET history_bytes = -1 WHERE id = :id"), {"id": run_id}
    )
