"""What an index is made of: all embeddings of a model as one snapshot sees them, checked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, text

from app.ann import Ids
from app.database import snapshot
from app.errors import BuildRefused
from app.store import pictures, stamps
from app.values import Model, Vectors

UNIT_TOLERANCE = 1e-2
"""How far a stored vector's length may be from 1; rounding to float16 accounts for 1e-3."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a build is made of: the snapshot, ids (n,) and unit vectors (n, dim)."""

    snapshot: str
    ids: Ids
    vectors: Vectors


def read_content(engine: Engine, model: Model) -> Content:
    """All embeddings of a model as one snapshot sees them, checked; vectors made exactly unit.

    Raises BuildRefused on a replica, without the stamp trigger, and for vectors that are not
    finite or not of length 1: an index of them would nominate the wrong rows.
    """
    with snapshot(engine) as connection:
        # However long the reading takes; but not behind a lock that somebody forgot.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = '60s'"))
        seen = connection.execute(text("SELECT pg_current_snapshot()::text")).scalar_one()
        check_primary(connection)
        _check_stamp(connection)
        blocks = list(pictures.stream(connection, model))
    ids, vectors = _joined(blocks, model.dim)
    return Content(seen, ids, _unit(ids, vectors))


def _joined(blocks: list[tuple[Ids, NDArray[np.float16]]], dim: int) -> tuple[Ids, Vectors]:
    """The blocks in one float32 array; each block is let go as soon as it is copied."""
    rows = sum(len(ids) for ids, _ in blocks)
    all_ids, all_vectors = np.empty(rows, np.int64), np.empty((rows, dim), np.float32)
    end = rows
    while blocks:
        ids, vectors = blocks.pop()
        begin = end - len(ids)
        all_ids[begin:end], all_vectors[begin:end] = ids, vectors
        end = begin
    return all_ids, all_vectors


def _unit(ids: Ids, vectors: Vectors) -> Vectors:
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    bad = ~(np.abs(lengths - 1.0) <= UNIT_TOLERANCE)  # true for NaN as well
    if bad.any():
        raise BuildRefused(
            f"{int(bad.sum())} embeddings are not finite vectors of length 1, the first of them of "
            f"picture {ids[bad][0]}. Delete those rows of `embedding` and ingest again."
        )
    if len(np.unique(ids)) != len(ids):
        raise BuildRefused("A picture has two embeddings; the primary key is missing.")
    vectors /= lengths[:, np.newaxis]
    return vectors


def check_primary(connection: Connection) -> None:
    """Raise BuildRefused on a replica: its snapshots do not know who is in progress."""
    if connection.execute(text("SELECT pg_is_in_recovery()")).scalar_one():
        raise BuildRefused("This is a replica; build the index on the primary server.")


def _check_stamp(connection: Connection) -> None:
    """The horizon rests on the stamp of every written row, so look whether it is still given."""
    if found := stamps.unstamped(connection, stamps.EMBEDDING):
        raise BuildRefused(
            f"The trigger that stamps changed rows is missing or off on {', '.join(found)}, so an "
            "index could not tell what changed after it. Enable it: ALTER TABLE embedding ENABLE "
            "ALWAYS TRIGGER embedding_stamp."
        )
