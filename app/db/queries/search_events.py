"""SQL of `search_request`, `search_event` and `kept_photo`: searches and what came of them.

Searches and events are in partitions of a day by the server's clock, which functions of the
database create and drop: they run with the rights of the owner of the tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, text

CLICKS = ("click", "click_through", "add_to_cart", "purchase")
"""Actions that say that a product is what was looked for, from the weakest to the strongest."""

INSERT_REQUESTS = """
INSERT INTO search_request (query_id, kind, k, skipped, shown, folded, model, path, words, sku,
    photo_id, filters)
SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row (query_id text, kind text, k integer,
    skipped integer, shown text[], folded text[], model text, path text, words text, sku text,
    photo_id text, filters text[])"""

INSERT_EVENTS = """
INSERT INTO search_event (query_id, action_name, sku, position, client_id, session_id, application,
    occurred_at)
SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row (query_id text, action_name text,
    sku text, position integer, client_id text, session_id text, application text,
    occurred_at timestamptz)"""

# Of each search only the products with its strongest action, and only products that it showed: a
# basket may hold others. A search that several people made is one query.
LABELLED = """
WITH acted AS (
    SELECT r.query_id, r.words, r.sku AS searched_sku, r.photo_id, r.filters, e.sku,
        array_position(CAST(:actions AS text[]), e.action_name) AS strength,
        max(array_position(CAST(:actions AS text[]), e.action_name)) OVER (PARTITION BY r.query_id)
            AS strongest
    FROM search_request AS r JOIN search_event AS e ON e.query_id = r.query_id
    WHERE e.action_name = ANY(CAST(:actions AS text[]))
        AND (r.words IS NOT NULL OR r.sku IS NOT NULL OR r.photo_id IS NOT NULL)
        AND (e.sku = ANY(r.shown) OR e.sku = ANY(r.folded))
)
SELECT DISTINCT a.words, a.searched_sku, a.photo_id, a.filters, a.sku, p.preview
FROM acted AS a LEFT JOIN kept_photo AS p ON p.id = a.photo_id
WHERE a.strength = a.strongest AND (a.photo_id IS NULL OR p.id IS NOT NULL)
ORDER BY a.words, a.searched_sku, a.photo_id, a.filters, a.sku"""

# Kept are those of searches with a click, and for a day those that may still get one.
DELETE_PHOTOS = """
DELETE FROM kept_photo AS p
WHERE kept_at < now() - :days * interval '1 day' OR kept_at < now() - interval '1 day'
    AND NOT EXISTS (
        SELECT FROM search_request AS r JOIN search_event AS e ON e.query_id = r.query_id
        WHERE r.photo_id = p.id AND e.action_name = ANY(CAST(:actions AS text[])))"""


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A search to record. `words`, `sku`, `photo_id` and `filters` are None where they are not to
    be kept; `skipped` counts the products of earlier pages."""

    query_id: str
    kind: str
    k: int
    skipped: int
    shown: Sequence[str]
    folded: Sequence[str]
    model: str
    path: str
    words: str | None = None
    sku: str | None = None
    photo_id: str | None = None
    filters: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event to store; `position` is counted from 1 by the client."""

    query_id: str
    action_name: str
    sku: str | None = None
    position: int | None = None
    client_id: str | None = None
    session_id: str | None = None
    application: str | None = None
    occurred_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """A search with a product that was clicked or bought in its results (`expected_sku`).

    It was by `words`, by `sku`, or by the photo of which `preview` is a JPEG, or by two of these.
    """

    words: str | None
    sku: str | None
    photo_id: str | None
    filters: tuple[str, ...]
    expected_sku: str
    preview: bytes | None


def insert_requests(connection: Connection, rows: Iterable[RequestRow]) -> None:
    """Record searches, at the time of the server."""
    connection.execute(text(INSERT_REQUESTS), {"rows": _json(map(asdict, rows))})


def insert_events(connection: Connection, rows: Iterable[EventRow]) -> None:
    """Store events, at the time of the server."""
    connection.execute(text(INSERT_EVENTS), {"rows": _json(map(asdict, rows))})


def add_partitions(connection: Connection, ahead: int) -> int:
    """Create the missing partitions of today and so many days ahead; returns their number."""
    sql = text("SELECT add_search_partitions(:ahead)")
    return int(connection.execute(sql, {"ahead": ahead}).scalar_one())


def drop_partitions(connection: Connection, days: float) -> int:
    """Drop the partitions that hold only rows older than so many days; returns their number."""
    sql = text("SELECT drop_search_partitions(:days)")
    return int(connection.execute(sql, {"days": days}).scalar_one())


def keep_photo(connection: Connection, id_: str, preview: bytes, most: int) -> None:
    """Keep the preview (JPEG) of a photo, unless `most` are kept already."""
    connection.execute(
        text(
            """INSERT INTO kept_photo (id, preview) SELECT :id, :preview
            WHERE (SELECT count(*) FROM kept_photo) < :most"""
        ),
        {"id": id_, "preview": preview, "most": most},
    )


def delete_photos(connection: Connection, days: float) -> int:
    """Delete kept photos older than so many days, and those without a click after a day."""
    values = {"days": days, "actions": list(CLICKS)}
    return connection.execute(text(DELETE_PHOTOS), values).rowcount


def labelled(connection: Connection) -> list[LabelledRow]:
    """Searches whose queries were kept, with what was clicked or bought in their results."""
    return [
        LabelledRow(
            row.words, row.searched_sku, row.photo_id, tuple(row.filters or ()), row.sku,
            None if row.preview is None else bytes(row.preview),
        )
        for row in connection.execute(text(LABELLED), {"actions": list(CLICKS)})
    ]  # fmt: skip


def _json(rows: Iterable[Mapping[str, object]]) -> str:
    return json.dumps(list(rows), default=str)
