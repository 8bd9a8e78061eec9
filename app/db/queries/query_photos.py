"""SQL of `query_photo`: photos to search with, kept for a while."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class QueryPhotoRow:
    """A row of `query_photo`: `vector` are the bytes of float32 numbers, little-endian.

    `expires` is known of rows that were read.
    """

    id: str
    fingerprint: str
    vector: bytes
    objects: Mapping[str, Any] | None
    preview: bytes
    expires: datetime | None = None


def insert(connection: Connection, photo: QueryPhotoRow, minutes: float) -> datetime:
    """Store a photo for so many minutes; returns when it expires."""
    expires: datetime = connection.execute(
        text(
            """INSERT INTO query_photo (id, fingerprint, vector, objects, preview, expires_at)
            VALUES (:id, :fingerprint, :vector, CAST(:objects AS jsonb), :preview,
                now() + :minutes * interval '1 minute')
            RETURNING expires_at"""
        ),
        {
            "id": photo.id, "fingerprint": photo.fingerprint, "vector": photo.vector,
            "objects": None if photo.objects is None else json.dumps(photo.objects),
            "preview": photo.preview, "minutes": minutes,
        },
    ).scalar_one()  # fmt: skip
    return expires


def find(connection: Connection, id_: str) -> QueryPhotoRow | None:
    """The photo with this id; None if there is none, or if it has expired."""
    row = connection.execute(
        text(
            """SELECT id, fingerprint, vector, objects, preview, expires_at FROM query_photo
            WHERE id = :id AND expires_at > now()"""
        ),
        {"id": id_},
    ).one_or_none()
    if row is None:
        return None
    return QueryPhotoRow(
        row.id, row.fingerprint, bytes(row.vector), row.objects, bytes(row.preview), row.expires_at
    )


def delete(connection: Connection, id_: str) -> None:
    """Delete the photo with this id, if there is one."""
    connection.execute(text("DELETE FROM query_photo WHERE id = :id"), {"id": id_})


def delete_expired(connection: Connection) -> int:
    """Delete the photos that have expired; returns their number."""
    return connection.execute(text("DELETE FROM query_photo WHERE expires_at <= now()")).rowcount


def count(connection: Connection, minutes: float = 0) -> int:
    """How many photos are stored that are kept for longer than so many minutes."""
    sql = """SELECT count(*) FROM query_photo
        WHERE expires_at - created_at > :minutes * interval '1 minute'"""
    return int(connection.execute(text(sql), {"minutes": minutes}).scalar_one())
