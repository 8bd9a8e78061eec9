"""Embeddings in and out of PostgreSQL by COPY BINARY, straight from and into numpy arrays.

A tuple on the wire is a field count and, for each field, a length and the value, all big-endian;
a halfvec is its dimension, an unused word and its float16 values. With a fixed dimension every
tuple has the same length, so that numpy reads and writes a whole block at once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from sqlalchemy import Connection

from app.driver_errors import driver_errors
from app.errors import BuildRefused
from app.values import Model

SIGNATURE = b"PGCOPY\n\xff\r\n\0"
HEADER = SIGNATURE + struct.pack("!ii", 0, 0)
TRAILER = struct.pack("!h", -1)
BLOCK_ROWS = 8192

Ids = NDArray[np.int64]


def embeddings_in(
    connection: Connection, model: Model, ids: Ids, vectors: NDArray[np.float32]
) -> None:
    """Insert embeddings that are not there yet; ids (n,), vectors (n, dim)."""
    statement = "COPY embedding (model_id, picture_id, vec) FROM STDIN (FORMAT BINARY)"
    with driver_errors(), _cursor(connection).copy(statement) as out:
        out.write(packed(model, ids, vectors))


def packed(model: Model, ids: Ids, vectors: NDArray[np.float32]) -> bytes:
    """What COPY BINARY reads as rows of `embedding`; ids (n,), vectors (n, dim)."""
    rows = np.zeros(len(ids), dtype=_row(model.dim, with_model=True))
    rows["fields"], rows["model_length"], rows["model"] = 3, 4, model.id
    rows["id_length"], rows["id"] = 8, ids
    rows["vec_length"], rows["dim"], rows["vec"] = 4 + 2 * model.dim, model.dim, vectors
    return HEADER + rows.tobytes() + TRAILER


def embeddings_out(
    connection: Connection, model: Model
) -> Iterator[tuple[Ids, NDArray[np.float16]]]:
    """Every embedding of a model, block by block: ids (n,) int64, vectors (n, dim) float16."""
    statement = sql.SQL(
        "COPY (SELECT picture_id, vec FROM embedding WHERE model_id = {}) TO STDOUT (FORMAT BINARY)"
    ).format(model.id)
    row = _row(model.dim, with_model=False)
    with driver_errors(), _cursor(connection).copy(statement) as chunks:
        for block in _whole_rows(chunks, row.itemsize, model):
            rows = np.frombuffer(block, dtype=row)
            if (rows["dim"] != model.dim).any() or (rows["vec_length"] != 4 + 2 * model.dim).any():
                raise _unequal(model)
            yield rows["id"].astype(np.int64), rows["vec"].astype(np.float16)


def _whole_rows(
    chunks: Iterable[bytes | bytearray | memoryview], row_bytes: int, model: Model
) -> Iterator[bytes]:
    try:
        yield from _blocks(map(bytes, chunks), row_bytes)
    except ValueError as exc:
        raise _unequal(model) from exc


def _unequal(model: Model) -> BuildRefused:
    return BuildRefused(
        f"Some embeddings of {model.name} are not {model.dim} numbers wide. Delete those rows of "
        "`embedding` and ingest again."
    )


def _blocks(chunks: Iterable[bytes], row_bytes: int) -> Iterator[bytes]:
    """Whole rows from chunks that may end anywhere, without the header and the trailer."""
    buffer = bytearray()
    header = len(HEADER)
    for chunk in chunks:
        buffer += chunk
        if header and len(buffer) >= header:
            del buffer[:header]
            header = 0
        if not header and len(buffer) >= BLOCK_ROWS * row_bytes + len(TRAILER):
            whole = (len(buffer) - len(TRAILER)) // row_bytes * row_bytes
            yield bytes(buffer[:whole])
            del buffer[:whole]
    whole, rest = divmod(len(buffer) - len(TRAILER), row_bytes)
    if header or rest or not buffer.endswith(TRAILER):
        raise ValueError("rows of another length")
    yield bytes(buffer[: whole * row_bytes])


def _row(dim: int, *, with_model: bool) -> np.dtype[np.void]:
    model = [("model_length", ">i4"), ("model", ">i4")] if with_model else []
    return np.dtype(
        [
            ("fields", ">i2"),
            *model,
            ("id_length", ">i4"),
            ("id", ">i8"),
            ("vec_length", ">i4"),
            ("dim", ">i2"),
            ("unused", ">i2"),
            ("vec", ">f2", (dim,)),
        ]
    )


def _cursor(connection: Connection) -> psycopg.Cursor[tuple[object, ...]]:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver.cursor()
