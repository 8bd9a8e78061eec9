"""Embeddings in and out of PostgreSQL in binary, straight from and into numpy arrays.

A tuple of COPY BINARY is a field count and, for each field, a length and the value, all big-endian;
a halfvec is its dimension, an unused word and its float16 values. With a fixed dimension all have
the same length, so that numpy reads and writes many at once.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Mapping
from functools import cache
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

_TOGETHER = sql.SQL(
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
"""One row for many: what a row costs between server and Python is more than what is in it."""


def rows_in(connection: Connection, rows: CopyRows) -> None:
    """Insert embeddings that are not there yet, made by `rows`."""
    statement = "COPY embedding (model_id, picture_id, vec) FROM STDIN (FORMAT BINARY)"
    with driver_errors(), _cursor(connection).copy(statement) as out:
        out.write(packed(rows))


def packed(rows: CopyRows) -> bytes:
    """What COPY BINARY reads as rows of `embedding`."""
    return HEADER + rows.tobytes() + TRAILER


def rows_by_id(model: Model, vectors: Mapping[int, Vector]) -> CopyRows:
    """Embeddings by the picture's id as `rows`, in the order of their ids, (n,)."""
    ids = sorted(vectors)
    joined = np.concatenate([vectors[id_] for id_ in ids])  # half the time that np.stack takes
    return rows(model, np.array(ids, dtype=np.int64), joined.reshape(len(ids), model.dim))


def only(rows: CopyRows, ids: Ids) -> CopyRows:
    """Those of these rows that are embeddings of these pictures (id), which are among them."""
    return rows if len(ids) == len(rows) else rows[np.isin(rows["id"], ids)]


def rows(model: Model, ids: Ids, vectors: NDArray[np.float32]) -> CopyRows:
    """Embeddings as COPY BINARY reads them, (n,); ids (n,), vectors (n, dim)."""
    made = np.zeros(len(ids), dtype=_row(model.dim))
    made["fields"], made["model_length"], made["model"] = 3, 4, model.id
    made["id_length"], made["id"] = 8, ids
    made["vec_length"], made["dim"], made["vec"] = 4 + 2 * model.dim, model.dim, vectors
    return made


def embeddings_out(
    connection: Connection, model: Model, pages: range
) -> Generator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
    """Every embedding of a model in these pages of its table, some pages at a time: ids (n,) and
    vectors (n, dim), big-endian. A step of `pages` says how many pages are put into one row.

    Raises BuildRefused for a vector of another dimension.
    """
    with driver_errors():
        for ids, vectors in _cursor(connection).stream(
            _TOGETHER.format(model.id, pages.start, pages.stop, pages.step), binary=True
        ):
            yield np.frombuffer(ids, dtype=">i8"), _unwrapped(vectors, len(ids) // 8, model)


def _unwrapped(sent: bytes, rows: int, model: Model) -> NDArray[np.float16]:
    """Vectors (rows, dim) as the server sends them one after the other."""
    halfvec = np.dtype([("dim", ">i2"), ("unused", ">i2"), ("vec", ">f2", (model.dim,))])
    if len(sent) != rows * halfvec.itemsize:
        raise _unequal(model)
    found = np.frombuffer(sent, dtype=halfvec)
    if (found["dim"] != model.dim).any():
        raise _unequal(model)
    return found["vec"]


def _unequal(model: Model) -> BuildRefused:
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
