"""Reads and validates the embeddings of a model in one snapshot, in blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine

from app.db.engine import snapshot
from app.db.queries import change_stamps, database_info, embeddings
from app.errors import BuildRefused
from app.index.id_selectors import Ids
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

BLOCK_ROWS = 2048
"""Rows of a block that is read from memory, or of ids that are looked up at a time."""

MAX_FLAGS_PER_ID = 64
"""Duplicate ids are found with one flag per possible id up to this density; above, by sorting."""


class Embeddings(Protocol):
    """Input of a build: the embeddings of one snapshot, which are read in blocks."""

    snapshot: str
    """The `pg_current_snapshot()`."""
    rows: int
    dim: int

    def blocks(self) -> Iterator[tuple[Ids, EmbeddingRows]]:
        """All rows, in the same order each time: ids (n,) int64, and unit vectors (n, dim)."""

    def vectors_of(self, ids: Ids) -> EmbeddingRows:
        """The vectors of these ids, shape (n,), which must exist: (n, dim), of about length 1."""


class EmbeddingSnapshot:
    """Embeddings in memory: ids (n,) int64, and unit vectors (n, dim)."""

    def __init__(self, snapshot: str, ids: Ids, vectors: EmbeddingRows) -> None:
        self.snapshot, self.ids, self.vectors = snapshot, ids, vectors
        self.rows, self.dim = len(ids), int(vectors.shape[1])

    def blocks(self) -> Iterator[tuple[Ids, EmbeddingRows]]:
        for begin in range(0, self.rows, BLOCK_ROWS):
            part = slice(begin, begin + BLOCK_ROWS)
            yield self.ids[part], self.vectors[part]

    def vectors_of(self, ids: Ids) -> EmbeddingRows:
        order = np.argsort(self.ids)
        return self.vectors[order[np.searchsorted(self.ids, ids, sorter=order)]]


class StoredEmbeddings:
    """The embeddings in the table of a model. A block at a time is in memory.

    Vectors whose length differs from 1 by more than rounding, but at most by UNIT_TOLERANCE, are
    normalised. At its end `blocks` raises BuildRefused for duplicate ids, and for vectors that are
    not finite or not of length 1: an index of them would nominate the wrong rows.
    """

    def __init__(self, connection: Connection, model: Model) -> None:
        """`connection` is in the transaction whose snapshot is read."""
        self._connection = connection
        self.model = model
        self.snapshot = database_info.current_snapshot(connection)
        self.rows = embeddings.count_all(connection, model)
        self.dim = model.dim

    def export(self) -> tuple[str, range]:
        """The snapshot for `read_pages` elsewhere, valid as long as this one is open, and the pages
        of the table in it, in steps of a block."""
        pages = range(0, embeddings.page_count(self._connection, self.model), PAGES_PER_BLOCK)
        return database_info.export_snapshot(self._connection), pages

    def id_bounds(self, step: int) -> list[int]:
        """The picture id of every `step`-th embedding in the order of ids, from the first on, and
        the number after the last one."""
        return embeddings.id_bounds(self._connection, self.model, step)

    def blocks_of(self, bounds: Sequence[int]) -> Iterator[tuple[Ids, EmbeddingRows]]:
        """The rows whose ids are from each bound to before the next one, a block for each. Only
        `blocks` refuses rows that an index must not have."""
        with closing(embeddings.stream_of(self._connection, self.model, bounds)) as stream:
            for ids, vectors, _ in _unpacked(stream):
                yield ids, vectors

    def blocks(self) -> Iterator[tuple[Ids, EmbeddingRows]]:
        all_ids, filled, bad = np.empty(self.rows, np.int64), 0, list[int]()
        pages = range(0, embeddings.page_count(self._connection, self.model), PAGES_PER_BLOCK)
        # Closed also after an error, or the connection would go on sending.
        with closing(embeddings.stream(self._connection, self.model, pages)) as stream:
            for ids, vectors, invalid in _unpacked(stream):
                bad += ids[invalid].tolist()
                if filled + len(ids) > self.rows:
                    raise _count_mismatch(self.model, self.rows)
                all_ids[filled : filled + len(ids)] = ids
                filled += len(ids)
                if not bad:
                    yield ids, vectors
        if filled != self.rows:
            raise _count_mismatch(self.model, self.rows)
        if bad:
            raise BuildRefused(
                f"{len(bad)} embeddings are not finite vectors of length 1, the first of them of "
                f"picture {min(bad)}. Delete those rows of `embedding` and ingest again."
            )
        if _has_duplicates(all_ids):
            raise BuildRefused("A picture has two embeddings; the primary key is missing.")

    def vectors_of(self, ids: Ids) -> EmbeddingRows:
        wanted, inverse = np.unique(ids, return_inverse=True)
        found = np.empty((len(wanted), self.dim), np.float32)
        for begin in range(0, len(wanted), BLOCK_ROWS):
            part = wanted[begin : begin + BLOCK_ROWS].tolist()
            vectors = embeddings.vectors(self._connection, self.model, part)
            found[begin : begin + BLOCK_ROWS] = [vectors[id_] for id_ in part]
        return found[inverse]


def read_pages(
    engine: Engine, model: Model, exported: str, pages: range
) -> Iterator[tuple[Ids, EmbeddingRows]]:
    """The embeddings in a range of table pages, in the blocks of `StoredEmbeddings.blocks`.

    `exported` and `pages` are from `StoredEmbeddings.export`, whose reader validates all rows.
    """
    with snapshot(engine, exported) as connection:
        embeddings.prepare_stream(connection)
        with closing(embeddings.stream(connection, model, pages)) as stream:
            for ids, vectors, _ in _unpacked(stream):
                yield ids, vectors


def read_ids(
    engine: Engine, model: Model, exported: str, bounds: Sequence[int]
) -> Iterator[tuple[Ids, EmbeddingRows]]:
    """The embeddings in ranges of ids, in the blocks of `StoredEmbeddings.blocks_of`."""
    with snapshot(engine, exported) as connection:
        embeddings.prepare_stream(connection)
        with closing(embeddings.stream_of(connection, model, bounds)) as stream:
            for ids, vectors, _ in _unpacked(stream):
                yield ids, vectors


def _unpacked(
    stream: Iterable[tuple[NDArray[np.int64], NDArray[np.float16]]],
) -> Iterator[tuple[Ids, EmbeddingRows, NDArray[np.bool_]]]:
    """Ids, vectors of length 1, and a mask of invalid ones, of each block."""
    for packed_ids, packed_vectors in stream:
        ids, vectors = packed_ids.astype(np.int64), packed_vectors.astype(np.float16)
        yield ids, vectors, _normalize(vectors)


@contextmanager
def open_embeddings(engine: Engine, model: Model) -> Iterator[StoredEmbeddings]:
    """The embeddings of a model in one snapshot, which stays open during the block.

    Raises BuildRefused on a replica and without the stamp trigger.
    """
    with snapshot(engine) as connection:
        embeddings.prepare_stream(connection)
        stored = StoredEmbeddings(connection, model)
        check_primary(connection)
        _check_stamp(connection)
        yield stored


def read_embeddings(engine: Engine, model: Model) -> EmbeddingSnapshot:
    """All embeddings of a model, read into memory. Raises BuildRefused as the others do."""
    with open_embeddings(engine, model) as stored:
        return collected(stored)


def collected(source: Embeddings) -> EmbeddingSnapshot:
    """The same embeddings in memory."""
    ids, vectors = np.empty(source.rows, np.int64), np.empty((source.rows, source.dim), np.float16)
    filled = 0
    for block_ids, block in source.blocks():
        rows = slice(filled, filled + len(block_ids))
        ids[rows], vectors[rows] = block_ids, block
        filled = rows.stop
    return EmbeddingSnapshot(source.snapshot, ids, vectors)


def sample_rows(source: Embeddings, count: int) -> EmbeddingRows:
    """About `count` random rows, (n, dim), all if there are no more; always the same for the same
    ids. Reads all rows once."""
    if source.rows <= count:
        return collected(source).vectors
    share = count / source.rows
    chosen: list[Any] = [block[random_mask(ids, share)] for ids, block in source.blocks()]
    rows: EmbeddingRows = np.concatenate(chosen)
    return rows


def random_mask(ids: Ids, share: float, seed: int = 0) -> NDArray[np.bool_]:
    """A random choice of a share (0 to 1) of ids, of any shape, that depends on nothing else."""
    mixed = (ids.astype(np.uint64) + np.uint64(seed)) * np.uint64(0x9E3779B97F4A7C15)
    for _ in range(2):
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    chosen: NDArray[np.bool_] = mixed < np.uint64(min(share, 1 - 2**-53) * 2**64)
    return chosen


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


def _count_mismatch(model: Model, rows: int) -> BuildRefused:
    """Counting may use an index of the table, reading uses the table itself."""
    return BuildRefused(
        f"{rows} embeddings of {model.name} were counted, and another number was read: an index of "
        f"its table is damaged. Run REINDEX TABLE embedding_m{model.id} and `lookalike check`."
    )


def _normalize(vectors: NDArray[np.float16]) -> NDArray[np.bool_]:
    """Normalise, in place, rows whose length is off by more than rounding; returns a mask of
    invalid rows."""
    bad = np.zeros(len(vectors), bool)
    for begin in range(0, len(vectors), CHECK_ROWS):
        block = vectors[begin : begin + CHECK_ROWS]
        rows = to_float32(block)
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        deviation = np.abs(lengths - 1.0)
        fixable = (deviation > ROUNDING_TOLERANCE) & (deviation <= UNIT_TOLERANCE)
        if fixable.any():
            block[fixable] = unit_rows(block[fixable])
        bad[begin : begin + CHECK_ROWS] = ~(deviation <= UNIT_TOLERANCE)  # NaN counts as bad
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
