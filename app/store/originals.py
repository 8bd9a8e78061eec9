"""SQL about pictures and where they came from, read in portions: thumbnails, originals, samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, text

from app.types import Model, Vector

PORTION = 256
"""Rows held at a time; a thumbnail has up to 20 KB."""


def thumbnails(connection: Connection) -> Iterator[Sequence[tuple[int, bytes]]]:
    """All pictures in portions: id, thumbnail."""
    for rows in _portions(connection, "SELECT id, thumbnail FROM picture"):
        yield [(row.id, bytes(row.thumbnail)) for row in rows]


def shown(connection: Connection) -> Iterator[Sequence[tuple[str, bytes]]]:
    """Every original that a product shows, in portions: where it came from, its sha256."""
    sql = """SELECT DISTINCT pp.uri, pic.sha256
        FROM product_picture AS pp JOIN picture AS pic ON pic.id = pp.picture_id"""
    for rows in _portions(connection, sql):
        yield [(row.uri, bytes(row.sha256)) for row in rows]


def sources(connection: Connection, picture_id: int) -> list[tuple[str, bytes]]:
    """Where a picture came from, each with its sha256."""
    sql = """SELECT DISTINCT pp.uri, pic.sha256
        FROM product_picture AS pp JOIN picture AS pic ON pic.id = pp.picture_id
        WHERE pic.id = :id ORDER BY pp.uri"""
    rows = connection.execute(text(sql), {"id": picture_id})
    return [(row.uri, bytes(row.sha256)) for row in rows]


def sample(connection: Connection, model: Model, count: int) -> list[tuple[str, bytes, Vector]]:
    """Some pictures drawn at random: where each came from, its sha256, its embedding (dim,)."""
    sql = """SELECT pp.uri, pic.sha256, e.vec::vector::real[] AS vec
        FROM product_picture AS pp JOIN picture AS pic ON pic.id = pp.picture_id
        JOIN embedding AS e ON e.picture_id = pic.id AND e.model_id = :model
        ORDER BY random() LIMIT :count"""
    rows = connection.execute(text(sql), {"model": model.id, "count": count})
    return [(row.uri, bytes(row.sha256), np.array(row.vec, dtype=np.float32)) for row in rows]


def save_thumbnail(connection: Connection, picture_id: int, thumbnail: bytes) -> None:
    """Put another thumbnail in place of a picture's own."""
    sql = "UPDATE picture SET thumbnail = :thumbnail WHERE id = :id"
    connection.execute(text(sql), {"id": picture_id, "thumbnail": thumbnail})


def _portions(connection: Connection, sql: str) -> Iterator[Sequence[Row[Any]]]:
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    rows = connection.execute(text(sql), execution_options={"yield_per": PORTION})
    yield from rows.partitions(PORTION)
