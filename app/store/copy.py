"""Embeddings in and out of PostgreSQL by COPY BINARY, straight from and into numpy arrays.

A tuple on the wire is a field count and, for each field, a length and the value, all big-endian;
a halfvec is its dimension, an unused word and its float16 values. With a fixed dimension every
tuple has the same length, so that numpy reads and writes a whole block at once.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterable, Iterator, Mapping
from functools import cache

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql, waiting
from sqlalchemy import Connection

from app.driver_errors import driver_errors
from app.errors import BuildRefused
from app.values import Model, Vector

SIGNATURE = b"PGCOPY\n\xff\r\n\0"
HEADER = SIGNATURE + struct.pack("!ii", 0, 0)
TRAILER = struct.pack("!h", -1)
MESSAGES = 128
"""Rows that are taken at once: about as many as the server has sent meanwhile, so that neither
waits for the other, and few enough to stay in the processor's cache."""

Ids = NDArray[np.int64]
Rows = NDArray[np.void]

Pages = tuple[int, int | None]
"""The first page of a part of a table, and the one it ends before; None: the table's end."""


def embeddings_in(
    connection: Connection, model: Model, ids: Ids, vectors: NDArray[np.float32]
) -> None:
    """Insert embeddings that are not there yet; ids (n,), vectors (n, dim)."""
    rows_in(connection, _rows(model, ids, vectors))


def rows_in(connection: Connection, rows: Rows) -> None:
    """Insert embeddings that are not there yet, made by `rows`."""
    statement = "COPY embedding (model_id, picture_id, vec) FROM STDIN (FORMAT BINARY)"
    with driver_errors(), _cursor(connection).copy(statement) as out:
        out.write(HEADER + rows.tobytes() + TRAILER)


def rows(model: Model, vectors: Mapping[int, Vector]) -> Rows:
    """Embeddings by the picture's id as COPY BINARY reads them, in the order of their ids, (n,)."""
    ids = sorted(vectors)
    joined = np.concatenate([vectors[id_] for id_ in ids])  # half the time that np.stack takes
    return _rows(model, np.array(ids, dtype=np.int64), joined.reshape(len(ids), model.dim))


def only(rows: Rows, ids: Ids) -> Rows:
    """Those of these rows that are embeddings of these pictures (id), which are among them."""
    return rows if len(ids) == len(rows) else rows[np.isin(rows["id"], ids)]


def packed(model: Model, ids: Ids, vectors: NDArray[np.float32]) -> bytes:
    """What COPY BINARY reads as rows of `embedding`; ids (n,), vectors (n, dim)."""
    return HEADER + _rows(model, ids, vectors).tobytes() + TRAILER


def _rows(model: Model, ids: Ids, vectors: NDArray[np.float32]) -> Rows:
    rows = np.zeros(len(ids), dtype=_row(model.dim, with_model=True))
    rows["fields"], rows["model_length"], rows["model"] = 3, 4, model.id
    rows["id_length"], rows["id"] = 8, ids
    rows["vec_length"], rows["dim"], rows["vec"] = 4 + 2 * model.dim, model.dim, vectors
    return rows


def embeddings_out(
    connection: Connection, model: Model, pages: Pages
) -> Generator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
    """Every embedding of a model in these pages of its table, block by block: ids (n,) and vectors
    (n, dim), big-endian.

    To be copied from before the next block is asked for.
    """
    first, end = pages
    last = "" if end is None else f" AND ctid < '({end:d},0)'"
    statement = sql.SQL(
        "COPY (SELECT picture_id, vec FROM embedding WHERE model_id = {}"
        f" AND ctid >= '({first:d},0)'{last}) TO STDOUT (FORMAT BINARY)"
    ).format(model.id)
    row = _row(model.dim, with_model=False)
    with driver_errors(), _cursor(connection).copy(statement):
        for block in _whole_rows(_received(connection), row.itemsize, model):
            rows = np.frombuffer(block, dtype=row)
            if (rows["dim"] != model.dim).any() or (rows["vec_length"] != 4 + 2 * model.dim).any():
                raise _unequal(model)
            yield rows["id"], rows["vec"]


def _received(connection: Connection) -> Iterator[bytes]:
    """What COPY sends, a few hundred rows at a time.

    psycopg's own loop begins to wait anew for each row; this takes a fifth less of the processor.
    """
    driver, more = _driver(connection), True
    while more:
        messages, more = driver.wait(_messages(driver.pgconn))
        yield b"".join(messages)


def _messages(
    connection: psycopg.pq.abc.PGconn,
) -> Generator[waiting.Wait, waiting.Ready | int, tuple[list[memoryview], bool]]:
    """The next messages, and whether more may come. Raises what the server says went wrong."""
    found: list[memoryview] = []
    while len(found) < MESSAGES:
        length, message = connection.get_copy_data(1)
        if length > 0:
            found.append(message)
        elif length == 0:  # not yet
            yield waiting.Wait.R
            connection.consume_input()
        else:
            yield from _ended(connection)
            return found, False
    return found, True


def _ended(
    connection: psycopg.pq.abc.PGconn,
) -> Generator[waiting.Wait, waiting.Ready | int, None]:
    """Take what a COPY ended with, all of it, else the connection is of no more use."""
    results = []
    while True:
        while connection.is_busy():
            yield waiting.Wait.R
            connection.consume_input()
        if (result := connection.get_result()) is None:
            break
        results.append(result)
    for result in results:
        if result.status != psycopg.pq.ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(result)


def _whole_rows(chunks: Iterable[bytes], row_bytes: int, model: Model) -> Iterator[bytes]:
    try:
        yield from _blocks(chunks, row_bytes)
    except ValueError as exc:
        raise _unequal(model) from exc


def _unequal(model: Model) -> BuildRefused:
    return BuildRefused(
        f"Some embeddings of {model.name} are not {model.dim} numbers wide. Delete those rows of "
        "`embedding` and ingest again."
    )


def _blocks(chunks: Iterable[bytes], row_bytes: int) -> Iterator[bytes]:
    """Whole rows from chunks that may end anywhere, without the header and the trailer."""
    rest, header = b"", len(HEADER)
    for chunk in chunks:
        rest += chunk
        whole = max(len(rest) - header - len(TRAILER), 0) // row_bytes * row_bytes
        if whole:
            yield rest[header : header + whole]
            rest, header = rest[header + whole :], 0
    if len(rest) != header + len(TRAILER) or not rest.endswith(TRAILER):
        raise ValueError("rows of another length")


@cache
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
    return _driver(connection).cursor()


def _driver(connection: Connection) -> psycopg.Connection[tuple[object, ...]]:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver
