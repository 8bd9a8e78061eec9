"""What an index is made of: all embeddings of a model as one snapshot sees them, checked."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, text

from app.db.engine import snapshot
from app.db.queries import change_stamps, embeddings
from app.errors import BuildRefused
from app.index.faiss_index import Ids
from app.types import EmbeddingRows, Model
from app.vectors import to_float32, unit_rows

UNIT_TOLERANCE = 1e-2
"""How far a stored vector's length may be from 1; rounding to float16 accounts for 1e-3."""

ROUNDING = 1e-4
"""How far rounding a unit vector to float16 puts its length off; with 512 numbers, about 1.5e-5."""


PAGES = 256
"""Pages of the table that the server puts into one row: two megabytes, so that neither it nor this
process waits for the other's whole work, nor handles every embedding by itself."""

LOOKED_AT = 256
"""Rows whose length is computed at once."""

READ_AT_ONCE = 20_000
"""Rows below which a second connection takes longer than it saves."""


SPARSE = 64
"""Flags an id up to which they are used; above, ids are sorted."""


@dataclass(frozen=True, slots=True)
class EmbeddingSnapshot:
    """What a build is made of: the snapshot, ids (n,) and unit vectors (n, dim)."""

    snapshot: str
    ids: Ids
    vectors: EmbeddingRows

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])


def read_content(engine: Engine, model: Model) -> EmbeddingSnapshot:
    """All embeddings of a model as one snapshot sees them, checked.

    Vectors whose length is off by more than rounding, but not by much, are made unit.

    Raises BuildRefused on a replica, without the stamp trigger, and for vectors that are not
    finite or not of length 1: an index of them would nominate the wrong rows.
    """
    with snapshot(engine) as connection:
        _take_time(connection)
        seen = connection.execute(text("SELECT pg_current_snapshot()::text")).scalar_one()
        check_primary(connection)
        _check_stamp(connection)
        ids, vectors = _read(engine, connection, model)
    if _doubled(ids):
        raise BuildRefused("A picture has two embeddings; the primary key is missing.")
    return EmbeddingSnapshot(seen, ids, vectors)


def _doubled(ids: Ids) -> bool:
    """Whether an id occurs twice. Ids are numbers that PostgreSQL gives out one after the other,
    so a flag for each up to the highest costs a hundredth of sorting them."""
    if not len(ids):
        return False
    lowest, highest = int(ids.min()), int(ids.max())
    if highest - lowest > SPARSE * len(ids):
        return len(np.unique(ids)) != len(ids)
    seen = np.zeros(highest - lowest + 1, dtype=bool)
    seen[ids - lowest] = True
    return bool(np.count_nonzero(seen) != len(ids))


def _take_time(connection: Connection) -> None:
    """However long the reading takes; but not behind a lock that somebody forgot."""
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text("SET LOCAL jit = off"))  # a long statement of little arithmetic
    connection.execute(text("SET LOCAL lock_timeout = '60s'"))


def _read(engine: Engine, connection: Connection, model: Model) -> tuple[Ids, NDArray[np.float16]]:
    """Ids (n,) and vectors (n, dim), counted first and then read to where they stay, so that there
    is never a second copy."""
    rows = embeddings.count_all(connection, model)
    into = _Rows(model, np.empty(rows, np.int64), np.empty((rows, model.dim), np.float16))
    pages = embeddings.page_count(connection, model)
    if rows < READ_AT_ONCE:
        into.fill(embeddings.stream(connection, model, range(0, pages, PAGES)))
        filled = into.filled
    else:
        filled = _read_in_halves(engine, connection, into, pages)
    if filled != rows:
        raise _miscounted(model, rows)
    if into.bad:
        raise BuildRefused(
            f"{len(into.bad)} embeddings are not finite vectors of length 1, the first of them of "
            f"picture {min(into.bad)}. Delete those rows of `embedding` and ingest again."
        )
    return into.ids, into.vectors


def _read_in_halves(engine: Engine, connection: Connection, into: _Rows, pages: int) -> int:
    """A server sends with one processor what a connection reads: two see the same snapshot, one
    filling from the front and the other from the back. Returns how many rows were read."""
    front, back = range(0, pages // 2, PAGES), range(pages // 2, pages, PAGES)
    shared = connection.execute(text("SELECT pg_export_snapshot()")).scalar_one()
    backwards = _Rows(into.model, into.ids[::-1], into.vectors[::-1], into.bad)

    def second_half() -> None:
        with snapshot(engine, shared) as other:
            _take_time(other)
            backwards.fill(embeddings.stream(other, into.model, back))

    with ThreadPoolExecutor(1, "read") as beside:
        behind = beside.submit(second_half)
        into.fill(embeddings.stream(connection, into.model, front))
        behind.result()
    return into.filled + backwards.filled


@dataclass(slots=True)
class _Rows:
    """Where embeddings are read to, from the front; `bad` are the ids of those of no use."""

    model: Model
    ids: Ids
    vectors: NDArray[np.float16]
    bad: list[int] = field(default_factory=list)
    filled: int = 0

    def fill(self, blocks: Generator[tuple[NDArray[np.int64], NDArray[np.float16]]]) -> None:
        """Copy the blocks in turn, and look at them while the server makes the next ones ready."""
        with closing(blocks):  # whatever happens, else the connection goes on sending
            for ids, vectors in blocks:
                here = slice(self.filled, self.filled + len(ids))
                if here.stop > len(self.ids):
                    raise _miscounted(self.model, len(self.ids))
                self.ids[here], self.vectors[here] = ids, vectors
                self._look_at(here)
                self.filled = here.stop

    def _look_at(self, rows: slice) -> None:
        """A few at a time, which the processor keeps at hand."""
        for begin in range(rows.start, rows.stop, LOOKED_AT):
            some = slice(begin, min(begin + LOOKED_AT, rows.stop))
            self.bad += self.ids[some][_unit(self.vectors[some])].tolist()


def _miscounted(model: Model, rows: int) -> BuildRefused:
    """Counting may go by an index of the table, reading goes by the table."""
    return BuildRefused(
        f"{rows} embeddings of {model.name} were counted, and another number was read: an index of "
        f"its table is damaged. Run REINDEX TABLE embedding_m{model.id} and `lookalike check`."
    )


def _unit(block: NDArray[np.float16]) -> NDArray[np.bool_]:
    """Make rows unit, in place, that rounding alone has not put off; returns which cannot be."""
    rows = to_float32(block)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    off = np.abs(lengths - 1.0)
    some = (off > ROUNDING) & (off <= UNIT_TOLERANCE)
    if some.any():
        block[some] = unit_rows(block[some])
    bad: NDArray[np.bool_] = ~(off <= UNIT_TOLERANCE)
    return bad


def check_primary(connection: Connection) -> None:
    """Raise BuildRefused on a replica: its snapshots do not know who is in progress."""
    if connection.execute(text("SELECT pg_is_in_recovery()")).scalar_one():
        raise BuildRefused("This is a replica; build the index on the primary server.")


def _check_stamp(connection: Connection) -> None:
    """The horizon rests on the stamp of every written row, so look whether it is still given."""
    if found := change_stamps.tables_without_trigger(connection, change_stamps.EMBEDDING):
        raise BuildRefused(
            f"The trigger that stamps changed rows is missing or off on {', '.join(found)}, so an "
            "index could not tell what changed after it. Enable it: ALTER TABLE embedding ENABLE "
            "ALWAYS TRIGGER embedding_stamp."
        )
