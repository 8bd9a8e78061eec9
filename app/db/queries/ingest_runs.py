"""SQL of `ingest_run` and `ingest_reject`, and of the temporary tables of a running ingest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

_UNSEEN = """FROM product AS p
    WHERE NOT EXISTS (SELECT FROM ingest_seen AS s WHERE s.sku = p.sku)
        AND EXISTS (SELECT FROM ingest_before AS b WHERE b.id = p.id)"""


def begin(
    connection: Connection, source: str, model_id: int | None, kind: str, undoes: int | None
) -> int:
    """Record the start of a run ("ingest" or "undo"); returns its id."""
    sql = text(
        "INSERT INTO ingest_run (source, model_id, kind, undoes)"
        " VALUES (:source, :model, :kind, :undoes) RETURNING id"
    )
    values = {"source": source, "model": model_id, "kind": kind, "undoes": undoes}
    return int(connection.execute(sql, values).scalar_one())


def record_delete(connection: Connection, skus: str, count: int) -> int:
    """Record a deletion in the transaction that deletes; returns its id."""
    sql = text(
        "INSERT INTO ingest_run (source, kind, state, report, finished_at)"
        " VALUES (:source, 'delete', 'finished',"
        " jsonb_build_object('deleted', CAST(:count AS int)), clock_timestamp()) RETURNING id"
    )
    return int(connection.execute(sql, {"source": skus, "count": count}).scalar_one())


def finish(connection: Connection, run_id: int, state: str, report: Mapping[str, Any]) -> None:
    """Record the end of a run with its counts; does nothing if the run is already finished."""
    connection.execute(
        text(
            "UPDATE ingest_run SET state = :state, report = CAST(:report AS jsonb),"
            " finished_at = clock_timestamp() WHERE id = :id AND state <> 'finished'"
        ),
        {"id": run_id, "state": state, "report": json.dumps(report)},
    )


def sources(connection: Connection) -> list[str]:
    """The distinct sources of ingests, the most recent first."""
    sql = """SELECT source FROM ingest_run WHERE kind = 'ingest'
        GROUP BY source ORDER BY max(id) DESC"""
    return list(connection.execute(text(sql)).scalars())


def fail_abandoned(connection: Connection) -> int:
    """Mark runs as failed that started over a day ago and never ended; returns their number."""
    sql = """UPDATE ingest_run SET state = 'failed', finished_at = clock_timestamp(),
            report = jsonb_build_object('reason', 'its process disappeared')
        WHERE state = 'running' AND started_at < clock_timestamp() - interval '1 day'"""
    return connection.execute(text(sql)).rowcount


def add_rejects(connection: Connection, run_id: int, rejects: Sequence[Mapping[str, Any]]) -> None:
    """Record rejects: mappings with line, sku, image and reason."""
    connection.execute(
        text(
            "INSERT INTO ingest_reject (run_id, line, sku, image, reason)"
            " VALUES (:run_id, :line, :sku, :image, :reason)"
        ),
        [{"run_id": run_id, **each} for each in rejects],
    )


def create_seen_skus(connection: Connection) -> None:
    """Create the temporary table of seen skus; it belongs to this connection."""
    connection.execute(text("DROP TABLE IF EXISTS pg_temp.ingest_seen"))
    connection.execute(
        text("CREATE TEMPORARY TABLE ingest_seen (sku text PRIMARY KEY, line bigint NOT NULL)")
    )


def seen_before(
    connection: Connection, skus: Sequence[str], lines: Sequence[int]
) -> dict[str, int]:
    """Record skus as seen; returns those seen before, with the line of their first occurrence."""
    values = {"skus": list(skus), "lines": list(lines)}
    rows = connection.execute(
        text("SELECT sku, line FROM ingest_seen WHERE sku = ANY(CAST(:skus AS text[]))"), values
    )
    repeated = {row.sku: row.line for row in rows}
    connection.execute(
        text(
            "INSERT INTO ingest_seen SELECT * FROM"
            " unnest(CAST(:skus AS text[]), CAST(:lines AS bigint[])) ON CONFLICT DO NOTHING"
        ),
        values,
    )
    return repeated


def snapshot_products(connection: Connection) -> None:
    """Record the ids of all products in a temporary table; timestamps cannot replace it."""
    connection.execute(text("DROP TABLE IF EXISTS pg_temp.ingest_before"))
    connection.execute(text("CREATE TEMPORARY TABLE ingest_before AS SELECT id FROM product"))
    connection.execute(text("ALTER TABLE pg_temp.ingest_before ADD PRIMARY KEY (id)"))


def count_snapshot(connection: Connection) -> int:
    """The number of recorded products."""
    return int(connection.execute(text("SELECT count(*) FROM ingest_before")).scalar_one())


def count_unseen(connection: Connection) -> int:
    """The number of recorded products that are still there and that the run has not seen."""
    return int(connection.execute(text(f"SELECT count(*) {_UNSEEN}")).scalar_one())


def first_unseen(connection: Connection, limit: int) -> list[str]:
    """The first skus of those that `count_unseen` counts."""
    sql = text(f"SELECT p.sku {_UNSEEN} ORDER BY p.id LIMIT :limit")
    return list(connection.execute(sql, {"limit": limit}).scalars())


def unseen_skus(connection: Connection, at_once: int) -> Iterator[list[str]]:
    """Skus of recorded products that the run has not seen, in lists of up to `at_once`.

    The caller must delete the products of a list before it takes the next one.
    """
    while skus := first_unseen(connection, at_once):
        yield skus
