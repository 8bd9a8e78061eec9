"""Binary transfer of embeddings between PostgreSQL and numpy arrays, by COPY and aggregates.

A tuple of COPY BINARY is a field count and, for each field, a length and the value, all big-endian.
A halfvec is its dimension, an unused 16-bit word and its float16 values. With a fixed dimension all
rows have the same length, so that numpy reads and writes many of them at once.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from sqlalchemy import Connection

from app.db.driver_errors import driver_errors
from app.db.engine import driver_connection
from app.errors import BuildRefused
from app.types import Model, Vector

SIGNATURE = b"PGCOPY\n\xff\r\n\0"
HEADER = SIGNATURE + struct.pack("!ii", 0, 0)
TRAILER = struct.pack("!h", -1)
Ids = NDArray[np.int64]
CopyRows = NDArray[np.void]

_BLOCKS = sql.SQL(
    """SELECT block.ids, block.vectors
    FROM generate_series({1}::bigint, {2}::bigint - 1, {3}::bigint) AS page(first),
        LATERAL (
            SELECT string_agg(int8send(picture_id), '') AS ids,
                string_agg(halfvec_send(vec), '') AS vectors
            FROM embedding WHERE model_id = {0}
                AND ctid >= ('(' || page.first || ',0)')::tid
                AND ctid < ('(' || least(page.first + {3}, {2}) || ',0)')::tid
        ) AS block
    WHERE block.ids IS NOT NULL"""
)
"""Aggregates many embeddings into one row: a row costs more than its content."""

_ID_BLOCK = """
    SELECT string_agg(int8send(picture_id), '') AS ids, string_agg(halfvec_send(vec), '') AS vectors
    FROM embedding WHERE model_id = %s AND picture_id >= %s AND picture_id < %s"""


def insert_rows(connection: Connection, rows: CopyRows) -> None:
    """Insert embeddings, from `make_rows`. None of them may be stored already."""
    statement = "COPY embedding (model_id, picture_id, vec) FROM STDIN (FORMAT BINARY)"
    with driver_errors(), _cursor(connection).copy(statement) as out:
        out.write(pack(rows))


def pack(rows: CopyRows) -> bytes:
    """The input of COPY BINARY for these rows of `embedding`."""
    return HEADER + rows.tobytes() + TRAILER


def rows_by_id(model: Model, vectors: Mapping[int, Vector]) -> CopyRows:
    """Rows (n,) for vectors by picture id, in the order of the ids."""
    ids = sorted(vectors)
    joined = np.concatenate([vectors[id_] for id_ in ids])  # takes half the time of np.stack
    return make_rows(model, np.array(ids, dtype=np.int64), joined.reshape(len(ids), model.dim))


def select_ids(rows: CopyRows, ids: Ids) -> CopyRows:
    """The rows of these pictures (id), all of which must be among the rows."""
    return rows if len(ids) == len(rows) else rows[np.isin(rows["id"], ids)]


def make_rows(model: Model, ids: Ids, vectors: NDArray[np.float32]) -> CopyRows:
    """Rows (n,) in the format of COPY BINARY, for ids (n,) and vectors (n, dim)."""
    packed = np.zeros(len(ids), dtype=_row(model.dim))
    packed["fields"], packed["model_length"], packed["model"] = 3, 4, model.id
    packed["id_length"], packed["id"] = 8, ids
    packed["vec_length"], packed["dim"], packed["vec"] = 4 + 2 * model.dim, model.dim, vectors
    return packed


def read_embeddings(
    connection: Connection, model: Model, pages: range
) -> Generator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
    """Read the embeddings of a model in a range of pages of its table, as blocks of ids (n,) and
    vectors (n, dim), big-endian. The step of `pages` is the number of pages per block.

    Raises BuildRefused for a vector of another dimension.
    """
    with driver_errors():
        for ids, vectors in _cursor(connection).stream(
            _BLOCKS.format(model.id, pages.start, pages.stop, pages.step), binary=True
        ):
            yield np.frombuffer(ids, dtype=">i8"), _parse_vectors(vectors, len(ids) // 8, model)


def read_embeddings_of(
    connection: Connection, model: Model, bounds: Sequence[int]
) -> Generator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
    """The same of pictures by their ids: a block for each two bounds that follow one another, with
    the ids from the first to before the second. Blocks without rows are left out."""
    with driver_errors():
        for first, end in pairwise(bounds):
            row = (
                _cursor(connection)
                .execute(_ID_BLOCK, (model.id, first, end), binary=True)
                .fetchone()
            )
            if row is not None and row[0] is not None:
                ids = np.frombuffer(row[0], dtype=">i8")
                yield ids, _parse_vectors(row[1], len(ids), model)


def _parse_vectors(data: bytes, rows: int, model: Model) -> NDArray[np.float16]:
    """Vectors (rows, dim) from concatenated halfvecs."""
    halfvec = np.dtype([("dim", ">i2"), ("unused", ">i2"), ("vec", ">f2", (model.dim,))])
    if len(data) != rows * halfvec.itemsize:
        raise _wrong_dimension(model)
    parsed = np.frombuffer(data, dtype=halfvec)
    if (parsed["dim"] != model.dim).any():
        raise _wrong_dimension(model)
    return parsed["vec"]


def _wrong_dimension(model: Model) -> BuildRefused:
    return BuildRefused(
        f"Some embeddings of {model.name} are not {model.dim} numbers wide. Delete those rows of "
        "`embedding` and ingest again."
    )


@cache
def _row(dim: int) -> np.dtype[np.void]:
    return np.dtype(
        [
            ("fields", ">i2"),
            ("model_length", ">i4"),
            ("model", ">i4"),
            ("id_length", ">i4"),
            ("id", ">i8"),
            ("vec_length", ">i4"),
            ("dim", ">i2"),
            ("unused", ">i2"),
            ("vec", ">f2", (dim,)),
        ]
    )


def _cursor(connection: Connection) -> psycopg.Cursor[Any]:
    return driver_connection(connection).cursor()
