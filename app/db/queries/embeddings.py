"""SQL of `embedding`: writing, counting and reading the vectors of pictures."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from app.db import copy, timeouts
from app.db.pipeline import Deferred, Pipeline
from app.types import Model, Vector


def missing_in(pipeline: Pipeline, model: Model, ids: Sequence[int]) -> Deferred[copy.Ids]:
    """The existing pictures among these ids that have no embedding under this model, (n,), int64.

    Their rows stay locked against deletion until the transaction ends.
    """
    # Packed into one row: one message per picture would take longer than the look-up.
    sql = f"""SELECT string_agg(int8send(id), '') AS ids FROM (
            SELECT id FROM picture WHERE id = ANY(CAST(%(ids)b AS bigint[])) AND NOT EXISTS (
                SELECT FROM embedding AS e
                WHERE e.picture_id = picture.id AND e.model_id = {model.id:d})
            ORDER BY id FOR KEY SHARE) AS found"""
    rows = pipeline.send(sql, {"ids": list(ids)})
    return lambda: np.frombuffer(rows()[0].ids or b"", dtype=">i8").astype(np.int64)


def store(
    connection: Connection, model: Model, vectors: Mapping[int, Vector], new: Iterable[int] = ()
) -> None:
    """Store embeddings by picture id, except those that the model already has.

    `new` pictures were inserted by this transaction, so they are not looked up.
    """
    existing = _embedded(connection, model, vectors.keys() - new)
    missing = {id_: vectors[id_] for id_ in vectors.keys() - existing} if existing else vectors
    if missing:
        copy.insert_rows(connection, copy.rows_by_id(model, missing))


def _embedded(connection: Connection, model: Model, ids: Collection[int]) -> set[int]:
    if not ids:
        return set()
    sql = f"""SELECT picture_id FROM embedding WHERE model_id = {model.id:d}
        AND picture_id = ANY(CAST(%(ids)b AS bigint[]))"""
    return set(connection.exec_driver_sql(sql, {"ids": list(ids)}).scalars())


def vectors_of_product(
    connection: Connection, product_id: int, model: Model
) -> NDArray[np.float32]:
    """The embeddings of a product's pictures in their order, shape (n, dim), float32."""
    rows = connection.execute(
        text(
            """SELECT e.vec::vector::real[]
            FROM product_picture AS pp
            JOIN embedding AS e ON e.picture_id = pp.picture_id AND e.model_id = :model
            WHERE pp.product_id = :product ORDER BY pp.position"""
        ),
        {"product": product_id, "model": model.id},
    ).scalars()
    return np.array(list(rows), dtype=np.float32).reshape(-1, model.dim)


def vectors(connection: Connection, model: Model, ids: Sequence[int]) -> dict[int, Vector]:
    """Embeddings by picture id, of the pictures that have one."""
    sql = """SELECT string_agg(int8send(picture_id) || halfvec_send(vec), '') FROM embedding
        WHERE model_id = %(model)s AND picture_id = ANY(CAST(%(ids)s AS bigint[]))"""
    values = {"model": model.id, "ids": list(ids)}
    packed = connection.exec_driver_sql(sql, values).scalar_one() or b""
    row = np.dtype([("id", ">i8"), ("dim", ">u2"), ("unused", ">u2"), ("vec", ">f2", model.dim)])
    rows = np.frombuffer(packed, dtype=row)
    return dict(zip(rows["id"].tolist(), rows["vec"].astype(np.float32), strict=True))


def random_vectors(connection: Connection, model: Model, count: int) -> NDArray[np.float32]:
    """The embeddings of up to `count` random pictures, shape (n, dim), float32."""
    rows = connection.execute(
        text(
            "SELECT vec::vector::real[] FROM embedding WHERE model_id = :model"
            " ORDER BY random() LIMIT :count"
        ),
        {"model": model.id, "count": count},
    ).scalars()
    return np.array(list(rows), dtype=np.float32).reshape(-1, model.dim)


def first_ids(connection: Connection, model: Model, count: int) -> list[int]:
    """The lowest picture ids that have an embedding under a model, at most `count`."""
    sql = """SELECT picture_id FROM embedding WHERE model_id = :model
        ORDER BY picture_id LIMIT :count"""
    return list(connection.execute(text(sql), {"model": model.id, "count": count}).scalars())


def stream(
    connection: Connection, model: Model, pages: range
) -> Generator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
    """All embeddings of a model in a range of table pages, in blocks of `pages.step` pages.

    Each block has picture ids, shape (n,), int64, and vectors, shape (n, dim), float16; both
    big-endian.
    """
    return copy.read_embeddings(connection, model, pages)


def stream_of(
    connection: Connection, model: Model, bounds: Sequence[int]
) -> Generator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
    """The same of pictures by their ids, in blocks from each bound to before the next one."""
    return copy.read_embeddings_of(connection, model, bounds)


def id_bounds(connection: Connection, model: Model, step: int) -> list[int]:
    """The picture id of every `step`-th embedding in the order of ids, from the first on, and the
    number after the last one; none without embeddings."""
    sql = """WITH numbered AS (
            SELECT picture_id, row_number() OVER (ORDER BY picture_id) - 1 AS place
            FROM embedding WHERE model_id = :model)
        SELECT picture_id FROM numbered WHERE place % :step = 0
        UNION ALL SELECT max(picture_id) + 1 FROM embedding WHERE model_id = :model
        ORDER BY picture_id"""
    found = connection.execute(text(sql), {"model": model.id, "step": step}).scalars()
    return [int(each) for each in found if each is not None]


def prepare_stream(connection: Connection) -> None:
    """Set this transaction up for `stream`: reading takes as long as it takes, but a lock is not
    waited for longer than a minute. Between reads, what was read may be worked on for any time."""
    timeouts.set_for_transaction(connection, statement_s=0, lock_s=60)
    timeouts.no_idle_timeout(connection)
    connection.execute(text("SET LOCAL jit = off"))  # compiling costs more than it saves here


def page_count(connection: Connection, model: Model) -> int:
    """Number of pages of a model's table.

    Asked after a snapshot was taken, these pages contain every row that the snapshot sees.
    """
    sql = """SELECT pg_relation_size(to_regclass(:name)) / current_setting('block_size')::int"""
    return int(connection.execute(text(sql), {"name": f"embedding_m{model.id}"}).scalar() or 0)


def count_all(connection: Connection, model: Model) -> int:
    """The number of embeddings of a model."""
    sql = text("SELECT count(*) FROM embedding WHERE model_id = :model")
    return int(connection.execute(sql, {"model": model.id}).scalar_one())


def count_up_to(connection: Connection, model: Model, at_most: int) -> int:
    """The number of embeddings of a model; counting stops at `at_most`."""
    sql = text(
        "SELECT count(*) FROM (SELECT FROM embedding WHERE model_id = :model LIMIT :at_most) AS e"
    )
    return int(connection.execute(sql, {"model": model.id, "at_most": at_most}).scalar_one())
