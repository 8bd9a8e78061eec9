"""SQL of `picture`: saving and sweeping pictures, their thumbnails and the sources of originals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pgvector import HalfVector
from sqlalchemy import Connection, Row, text

from app.db import timeouts
from app.db.pipeline import Deferred, Pipeline
from app.db.queries import history, picture_colours
from app.types import Model, PictureData, Vector

BATCH_ROWS = 256
"""Rows in memory at a time; a thumbnail has up to 20 KB."""


def thumbnails(connection: Connection) -> Iterator[Sequence[tuple[int, bytes]]]:
    """Ids and thumbnails of all pictures, in batches."""
    for rows in _batches(connection, "SELECT id, thumbnail FROM picture"):
        yield [(row.id, bytes(row.thumbnail)) for row in rows]


def first_thumbnails(connection: Connection, skus: Sequence[str]) -> dict[str, bytes]:
    """The thumbnail of the first picture of each product that has one, by sku."""
    sql = """SELECT p.sku, pic.thumbnail
        FROM product AS p CROSS JOIN LATERAL (
            SELECT picture_id FROM product_picture AS pp WHERE pp.product_id = p.id
            ORDER BY pp.position, pp.picture_id LIMIT 1) AS first
        JOIN picture AS pic ON pic.id = first.picture_id
        WHERE p.sku = ANY(CAST(:skus AS text[]))"""
    rows = connection.execute(text(sql), {"skus": list(skus)})
    return {row.sku: bytes(row.thumbnail) for row in rows}


def nearest_of_product(
    connection: Connection, model: Model, sku: str, vector: Vector
) -> list[tuple[float, bytes]] | None:
    """Cosine distance (0 to 2) to `vector`, shape (dim,), and thumbnail of the pictures of a
    product that have an embedding, nearest first; None if there is no such product."""
    sql = f"""SELECT e.vec <=> CAST(:vector AS halfvec({model.dim})) AS distance, pic.thumbnail
        FROM product AS p
        LEFT JOIN product_picture AS pp ON pp.product_id = p.id
        LEFT JOIN embedding AS e ON e.picture_id = pp.picture_id AND e.model_id = {model.id}
        LEFT JOIN picture AS pic ON pic.id = e.picture_id
        WHERE p.sku = :sku ORDER BY distance, pp.position"""
    values = {"vector": HalfVector(vector).to_text(), "sku": sku}
    rows = connection.execute(text(sql), values).all()
    found = [(row.distance, bytes(row.thumbnail)) for row in rows if row.thumbnail is not None]
    return found if rows else None


def hashes(connection: Connection, ids: Sequence[int]) -> dict[int, bytes]:
    """The sha256 (32 bytes) of each of these pictures that is stored, by id."""
    sql = "SELECT id, sha256 FROM picture WHERE id = ANY(CAST(:ids AS bigint[]))"
    rows = connection.execute(text(sql), {"ids": list(ids)})
    return {row.id: bytes(row.sha256) for row in rows}


def thumbnail(connection: Connection, sha256: bytes) -> bytes | None:
    """The thumbnail (JPEG) of a picture by its sha256; None if it is not stored."""
    row = connection.execute(
        text("SELECT thumbnail FROM picture WHERE sha256 = :sha256"), {"sha256": sha256}
    ).one_or_none()
    return None if row is None else bytes(row.thumbnail)


def originals(connection: Connection) -> Iterator[Sequence[tuple[str, bytes]]]:
    """Distinct uris and sha256 of the originals of all product pictures, in batches."""
    sql = """SELECT DISTINCT pp.uri, pic.sha256
        FROM product_picture AS pp JOIN picture AS pic ON pic.id = pp.picture_id"""
    for rows in _batches(connection, sql):
        yield [(row.uri, bytes(row.sha256)) for row in rows]


def sources(connection: Connection, picture_id: int) -> list[tuple[str, bytes]]:
    """The uris that a picture was loaded from, each with the picture's sha256."""
    sql = """SELECT DISTINCT pp.uri, pic.sha256
        FROM product_picture AS pp JOIN picture AS pic ON pic.id = pp.picture_id
        WHERE pic.id = :id ORDER BY pp.uri"""
    rows = connection.execute(text(sql), {"id": picture_id})
    return [(row.uri, bytes(row.sha256)) for row in rows]


def sample(connection: Connection, model: Model, count: int) -> list[tuple[str, bytes, Vector]]:
    """Up to `count` random pictures of products: uri, sha256, embedding (dim,) float32."""
    sql = """SELECT pp.uri, pic.sha256, e.vec::vector::real[] AS vec
        FROM product_picture AS pp JOIN picture AS pic ON pic.id = pp.picture_id
        JOIN embedding AS e ON e.picture_id = pic.id AND e.model_id = :model
        ORDER BY random() LIMIT :count"""
    rows = connection.execute(text(sql), {"model": model.id, "count": count})
    return [(row.uri, bytes(row.sha256), np.array(row.vec, dtype=np.float32)) for row in rows]


def save_thumbnail(connection: Connection, picture_id: int, thumbnail: bytes) -> None:
    """Replace the thumbnail of a picture."""
    sql = "UPDATE picture SET thumbnail = :thumbnail WHERE id = :id"
    connection.execute(text(sql), {"id": picture_id, "thumbnail": thumbnail})


def _batches(connection: Connection, sql: str) -> Iterator[Sequence[Row[Any]]]:
    timeouts.set_for_transaction(connection, statement_s=0)
    rows = connection.execute(text(sql), execution_options={"yield_per": BATCH_ROWS})
    yield from rows.partitions(BATCH_ROWS)


# Writers keep generic plans (`locks.begin_write`), so their statements contain the model id as text
# instead of a parameter: a generic plan for any model would lock the partitions of all models, and
# wait for a repair of another one.


def embedded_by_sha256(
    connection: Connection, sha256s: Sequence[bytes], model_id: int
) -> dict[bytes, bool]:
    """The stored ones of these pictures; True if this model has an embedding of it."""
    rows = connection.exec_driver_sql(
        f"""SELECT pic.sha256, e.picture_id IS NOT NULL AS embedded
        FROM picture AS pic
        LEFT JOIN embedding AS e ON e.picture_id = pic.id AND e.model_id = {model_id:d}
        WHERE pic.sha256 = ANY(CAST(%(sha256s)b AS bytea[]))""",
        {"sha256s": list(sha256s)},
    )
    return {bytes(row.sha256): row.embedded for row in rows}


def ids(connection: Connection, sha256s: Sequence[bytes]) -> dict[bytes, int]:
    """Ids of the stored ones of these pictures, locked against deletion until the commit."""
    rows = connection.exec_driver_sql(
        """SELECT sha256, id FROM picture WHERE sha256 = ANY(CAST(%(sha256s)b AS bytea[]))
        ORDER BY id FOR KEY SHARE""",
        {"sha256s": list(sha256s)},
    )
    return {bytes(row.sha256): row.id for row in rows}


def save(pipeline: Pipeline, pictures: Sequence[PictureData]) -> Deferred[dict[bytes, int]]:
    """Insert the pictures that are not stored yet, with their colours; returns their ids by
    sha256."""
    if not pictures:
        return dict
    rows = pipeline.send(
        """WITH added AS (
            INSERT INTO picture (sha256, width, height, thumbnail)
            SELECT unnest(CAST(%(sha256)b AS bytea[])), unnest(CAST(%(width)b AS integer[])),
                unnest(CAST(%(height)b AS integer[])), unnest(CAST(%(thumbnail)b AS bytea[]))
            ON CONFLICT (sha256) DO NOTHING RETURNING sha256, id
        ), coloured AS (
            INSERT INTO picture_colours (picture_id, version, main, main_share, shares)
            SELECT added.id, c.version, c.main, c.main_share, c.shares
            FROM added JOIN unnest(
                CAST(%(coloured)b AS bytea[]), CAST(%(version)b AS smallint[]),
                CAST(%(main)b AS smallint[]), CAST(%(main_share)b AS smallint[]),
                CAST(%(shares)b AS bytea[])
            ) AS c (sha256, version, main, main_share, shares) USING (sha256)
        )
        SELECT sha256, id FROM added""",
        {
            "sha256": [picture.sha256 for picture in pictures],
            "width": [picture.width for picture in pictures],
            "height": [picture.height for picture in pictures],
            "thumbnail": [picture.thumbnail for picture in pictures],
            **picture_colours.columns(
                "coloured",
                [(each.sha256, each.colours) for each in pictures if each.colours is not None],
            ),
        },
    )
    return lambda: dict(rows())


def sweep(connection: Connection, ids: Sequence[int], run_id: int | None = None) -> int:
    """Delete those of these pictures (ids) that no product shows; returns their number.

    They are kept in the history of the run, if there is one. Embeddings are deleted by cascade. A
    first statement locks the rows; the others then see products that other transactions linked
    while this one waited for the locks.
    """
    if not ids:
        return 0
    values = {"ids": list(ids)}
    connection.execute(
        text("SELECT FROM picture WHERE id = ANY(CAST(:ids AS bigint[])) ORDER BY id FOR UPDATE"),
        values,
    )
    if run_id is not None:
        history.record_pictures(connection, run_id, ids)
    result = connection.execute(
        text(
            """DELETE FROM picture WHERE id = ANY(CAST(:ids AS bigint[])) AND NOT EXISTS (
                SELECT FROM product_picture AS pp WHERE pp.picture_id = picture.id)"""
        ),
        values,
    )
    return result.rowcount
