"""Reads and validates all embeddings of a model in one snapshot."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine

from app.db.engine import snapshot
from app.db.queries import change_stamps, database_info, embeddings
from app.errors import BuildRefused
from app.index.faiss_index import Ids
from app.types import EmbeddingRows, Model
from app.vectors import to_float32, unit_rows

UNIT_TOLERANCE = 1e-2
"""Largest accepted deviation of a stored vector's length from 1; float16 rounding explains 1e-3."""

ROUNDING_TOLERANCE = 1e-4
"""Deviations of the length up to this come from float16 rounding (512 dimensions: about 1.5e-5)."""

PAGES_PER_BLOCK = 256
"""Table pages that the server aggregates into one result row (2 MB). Larger blocks make server and
client wait for each other; smaller ones cost overhead per row."""

CHECK_ROWS = 256
"""Rows whose lengths are computed at a time, so that they stay in the processor's cache."""

PARALLEL_MIN_ROWS = 20_000
"""Below this number of rows, opening a second connection costs more than it saves."""

MAX_FLAGS_PER_ID = 64
"""Duplicate ids are found with one flag per possible id up to this density; above, by sorting."""


@dataclass(frozen=True, slots=True)
class EmbeddingSnapshot:
    """Input of a build: the `pg_current_snapshot()`, ids (n,) int64, and unit vectors (n, dim)."""

    snapshot: str
    ids: Ids
    vectors: EmbeddingRows

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])


def read_embeddings(engine: Engine, model: Model) -> EmbeddingSnapshot:
    """Read and validate all embeddings of a model in one snapshot.

    Vectors whose length differs from 1 by more than rounding, but at most by UNIT_TOLERANCE, are
    normalised.

    Raises BuildRefused on a replica, without the stamp trigger, for duplicate ids, and for vectors
    that are not finite or not of length 1: an index of them would nominate the wrong rows.
    """
    with snapshot(engine) as connection:
        embeddings.prepare_stream(connection)
        pg_snapshot = database_info.current_snapshot(connection)
        check_primary(connection)
        _check_stamp(connection)
        ids, vectors = _read(engine, connection, model)
    if _has_duplicates(ids):
        raise BuildRefused("A picture has two embeddings; the primary key is missing.")
    return EmbeddingSnapshot(pg_snapshot, ids, vectors)


def _has_duplicates(ids: Ids) -> bool:
    """Whether an id occurs twice. Ids come from a sequence and are dense, so one flag per id up to
    the highest takes a hundredth of the time of sorting."""
    if not len(ids):
        return False
    lowest, highest = int(ids.min()), int(ids.max())
    if highest - lowest > MAX_FLAGS_PER_ID * len(ids):
        return len(np.unique(ids)) != len(ids)
    seen = np.zeros(highest - lowest + 1, dtype=bool)
    seen[ids - lowest] = True
    return bool(np.count_nonzero(seen) != len(ids))


def _read(engine: Engine, connection: Connection, model: Model) -> tuple[Ids, NDArray[np.float16]]:
    """Ids (n,) and vectors (n, dim). Rows are counted first and read straight into the final
    arrays, so that there is never a second copy."""
    rows = embeddings.count_all(connection, model)
    buffer = _ReadBuffer(model, np.empty(rows, np.int64), np.empty((rows, model.dim), np.float16))
    pages = embeddings.page_count(connection, model)
    if rows < PARALLEL_MIN_ROWS:
        buffer.fill(embeddings.stream(connection, model, range(0, pages, PAGES_PER_BLOCK)))
        filled = buffer.filled
    else:
        filled = _read_in_halves(engine, connection, buffer, pages)
    if filled != rows:
        raise _count_mismatch(model, rows)
    if buffer.bad:
        raise BuildRefused(
            f"{len(buffer.bad)} embeddings are not finite vectors of length 1, the first of them "
            f"of picture {min(buffer.bad)}. Delete those rows of `embedding` and ingest again."
        )
    return buffer.ids, buffer.vectors


def _read_in_halves(engine: Engine, connection: Connection, buffer: _ReadBuffer, pages: int) -> int:
    """Read with two connections that share the snapshot, because the server uses one processor per
    connection: one fills the arrays from the front, the other from the back. Returns the number of
    rows read."""
    front, back = range(0, pages // 2, PAGES_PER_BLOCK), range(pages // 2, pages, PAGES_PER_BLOCK)
    exported = database_info.export_snapshot(connection)
    backwards = _ReadBuffer(buffer.model, buffer.ids[::-1], buffer.vectors[::-1], buffer.bad)

    def read_back() -> None:
        with snapshot(engine, exported) as other:
            embeddings.prepare_stream(other)
            backwards.fill(embeddings.stream(other, buffer.model, back))

    with ThreadPoolExecutor(1, "read") as executor:
        second_half = executor.submit(read_back)
        buffer.fill(embeddings.stream(connection, buffer.model, front))
        second_half.result()
    return buffer.filled + backwards.filled


@dataclass(slots=True)
class _ReadBuffer:
    """Arrays that are filled from the front; `bad` are the ids of invalid vectors."""

    model: Model
    ids: Ids
    vectors: NDArray[np.float16]
    bad: list[int] = field(default_factory=list)
    filled: int = 0

    def fill(self, blocks: Generator[tuple[NDArray[np.int64], NDArray[np.float16]]]) -> None:
        """Copy the blocks in turn, and validate each while the server prepares the next."""
        with closing(blocks):  # also after an error, or the connection would go on sending
            for ids, vectors in blocks:
                rows = slice(self.filled, self.filled + len(ids))
                if rows.stop > len(self.ids):
                    raise _count_mismatch(self.model, len(self.ids))
                self.ids[rows], self.vectors[rows] = ids, vectors
                self._validate(rows)
                self.filled = rows.stop

    def _validate(self, rows: slice) -> None:
        for begin in range(rows.start, rows.stop, CHECK_ROWS):
            part = slice(begin, min(begin + CHECK_ROWS, rows.stop))
            self.bad += self.ids[part][_normalize_in_place(self.vectors[part])].tolist()


def _count_mismatch(model: Model, rows: int) -> BuildRefused:
    """Counting may use an index of the table, reading uses the table itself."""
    return BuildRefused(
        f"{rows} embeddings of {model.name} were counted, and another number was read: an index of "
        f"its table is damaged. Run REINDEX TABLE embedding_m{model.id} and `lookalike check`."
    )


def _normalize_in_place(block: NDArray[np.float16]) -> NDArray[np.bool_]:
    """Normalise rows whose length is off by more than rounding; returns a mask of invalid rows."""
    rows = to_float32(block)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    deviation = np.abs(lengths - 1.0)
    fixable = (deviation > ROUNDING_TOLERANCE) & (deviation <= UNIT_TOLERANCE)
    if fixable.any():
        block[fixable] = unit_rows(block[fixable])
    bad: NDArray[np.bool_] = ~(deviation <= UNIT_TOLERANCE)  # NaN counts as bad
    return bad


def check_primary(connection: Connection) -> None:
    """Raise BuildRefused on a replica: its snapshots do not list transactions in progress."""
    if database_info.is_replica(connection):
        raise BuildRefused("This is a replica; build the index on the primary server.")


def _check_stamp(connection: Connection) -> None:
    """Freshness depends on the trigger that stamps every written row: check that it is enabled."""
    if unstamped := change_stamps.tables_without_trigger(connection, change_stamps.EMBEDDING):
        raise BuildRefused(
            f"The trigger that stamps changed rows is missing or off on {', '.join(unstamped)}, so "
            "an index could not tell what changed after it. Enable it: ALTER TABLE embedding "
            "ENABLE ALWAYS TRIGGER embedding_stamp."
        )
