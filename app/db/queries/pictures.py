"""SQL about pictures and where they came from, read in portions: thumbnails, originals, samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, text

from app.db.pipeline import Deferred, Pipeline
from app.types import Model, PictureData, Vector

BATCH_ROWS = 256
"""Rows held at a time; a thumbnail has up to 20 KB."""


def thumbnails(connection: Connection) -> Iterator[Sequence[tuple[int, bytes]]]:
    """All pictures in portions: id, thumbnail."""
    for rows in _batches(connection, "SELECT id, thumbnail FROM picture"):
        yield [(row.id, bytes(row.thumbnail)) for row in rows]


def originals(connection: Connection) -> Iterator[Sequence[tuple[str, bytes]]]:
    """Every original that a product shows, in portions: where it came from, its sha256."""
    sql = """SELECT DISTINCT pp.uri, pic.sha256
        FROM product_picture AS pp JOIN picture AS pic ON pic.id = pp.picture_id"""
    for rows in _batches(connection, sql):
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


def _batches(connection: Connection, sql: str) -> Iterator[Sequence[Row[Any]]]:
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    rows = connection.execute(text(sql), execution_options={"yield_per": BATCH_ROWS})
    yield from rows.partitions(BATCH_ROWS)


# Where writers look (`writer.begin` has their plans kept), a model is named in the text and not by
# a value: a plan for any model locks the embeddings of all, and waits for whoever repairs those of
# another.


def embedded_by_sha256(
    connection: Connection, sha256s: Sequence[bytes], model_id: int
) -> dict[bytes, bool]:
    """The pictures that are stored, of these; True where this model has an embedding of it."""
    rows = connection.exec_driver_sql(
        f"""SELECT pic.sha256, e.picture_id IS NOT NULL AS embedded
        FROM picture AS pic
        LEFT JOIN embedding AS e ON e.picture_id = pic.id AND e.model_id = {model_id:d}
        WHERE pic.sha256 = ANY(CAST(%(sha256s)b AS bytea[]))""",
        {"sha256s": list(sha256s)},
    )
    return {bytes(row.sha256): row.embedded for row in rows}


def ids(connection: Connection, sha256s: Sequence[bytes]) -> dict[bytes, int]:
    """The ids of the pictures that are stored, of these; they stay until the transaction ends."""
    rows = connection.exec_driver_sql(
        """SELECT sha256, id FROM picture WHERE sha256 = ANY(CAST(%(sha256s)b AS bytea[]))
        ORDER BY id FOR KEY SHARE""",
        {"sha256s": list(sha256s)},
    )
    return {bytes(row.sha256): row.id for row in rows}


def save(trip: Pipeline, pictures: Sequence[PictureData]) -> Deferred[dict[bytes, int]]:
    """Store the pictures that are not stored yet; finds the ids of those, by sha256."""
    if not pictures:
        return dict
    rows = trip.send(
        """INSERT INTO picture (sha256, width, height, thumbnail)
        SELECT unnest(CAST(%(sha256)b AS bytea[])), unnest(CAST(%(width)b AS integer[])),
            unnest(CAST(%(height)b AS integer[])), unnest(CAST(%(thumbnail)b AS bytea[]))
        ON CONFLICT (sha256) DO NOTHING RETURNING sha256, id""",
        {
            "sha256": [picture.sha256 for picture in pictures],
            "width": [picture.width for picture in pictures],
            "height": [picture.height for picture in pictures],
            "thumbnail": [picture.thumbnail for picture in pictures],
        },
    )
    return lambda: dict(rows())


def sweep(connection: Connection, ids: Sequence[int]) -> int:
    """Delete those of these pictures that no product shows; their embeddings go with them.

    The rows are locked first and looked at in a second statement, which then sees the product that
    another transaction linked while this one waited.
    """
    if not ids:
        return 0
    values = {"ids": list(ids)}
    connection.execute(
        text("SELECT FROM picture WHERE id = ANY(CAST(:ids AS bigint[])) ORDER BY id FOR UPDATE"),
        values,
    )
    done = connection.execute(
        text(
            """DELETE FROM picture WHERE id = ANY(CAST(:ids AS bigint[])) AND NOT EXISTS (
                SELECT FROM product_picture AS pp WHERE pp.picture_id = picture.id)"""
        ),
        values,
    )
    return done.rowcount
