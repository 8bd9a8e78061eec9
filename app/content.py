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
from app.values import Model, Rows
from app.vectors import wide

UNIT_TOLERANCE = 1e-2
"""How far a stored vector's length may be from 1; rounding to float16 accounts for 1e-3."""

ROUNDING = 1e-4
"""How far rounding a unit vector to float16 puts its length off; with 512 numbers, about 1.5e-5."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a build is made of: the snapshot, ids (n,) and unit vectors (n, dim)."""

    snapshot: str
    ids: Ids
    vectors: Rows

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])


def read_content(engine: Engine, model: Model) -> Content:
    """All embeddings of a model as one snapshot sees them, checked.

    Vectors whose length is off by more than rounding, but not by much, are made unit.

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
        ids, vectors = _read(connection, model)
    if len(np.unique(ids)) != len(ids):
        raise BuildRefused("A picture has two embeddings; the primary key is missing.")
    return Content(seen, ids, vectors)


def _read(connection: Connection, model: Model) -> tuple[Ids, NDArray[np.float16]]:
    """Ids (n,) and vectors (n, dim), counted first and then read to where they stay, so that there
    is never a second copy; looked at while the server makes the next ones ready."""
    rows = pictures.count_all(connection, model)
    ids, vectors = np.empty(rows, np.int64), np.empty((rows, model.dim), np.float16)
    bad, begin = [], 0
    for some, their_vectors in pictures.stream(connection, model):
        here = slice(begin, begin := begin + len(some))
        if begin > rows:
            raise _miscounted(model, rows)
        ids[here], vectors[here] = some, their_vectors
        bad += ids[here][_unit(vectors[here])].tolist()
    if begin < rows:
        raise _miscounted(model, rows)
    if bad:
        raise BuildRefused(
            f"{len(bad)} embeddings are not finite vectors of length 1, the first of them of "
            f"picture {bad[0]}. Delete those rows of `embedding` and ingest again."
        )
    return ids, vectors


def _miscounted(model: Model, rows: int) -> BuildRefused:
    """Counting may go by an index of the table, reading goes by the table."""
    return BuildRefused(
        f"{rows} embeddings of {model.name} were counted, and another number was read: an index of "
        f"its table is damaged. Run REINDEX TABLE embedding_m{model.id} and `lookalike check`."
    )


def _unit(block: NDArray[np.float16]) -> NDArray[np.bool_]:
    """Make rows unit, in place, that rounding alone has not put off; returns which cannot be."""
    rows = wide(block)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    off = np.abs(lengths - 1.0)
    some = (off > ROUNDING) & (off <= UNIT_TOLERANCE)
    if some.any():
        block[some] = rows[some] / lengths[some, np.newaxis]
    bad: NDArray[np.bool_] = ~(off <= UNIT_TOLERANCE)
    return bad


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
