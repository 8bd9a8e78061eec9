"""Writes the rows of a source in this process, in chunks, to bound its memory.

While one chunk is written, the next is encoded and the one after it read and decoded.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from typing import Protocol

from app.catalog.batch_write import Batch, BatchChange, ModelsChanged, PicturesMissing
from app.catalog.service import CatalogService
from app.errors import BadImage
from app.types import Vector
from ingest.encoder_set import MaintainedEncoders
from ingest.prefetch import ENCODERS, Prefetcher, in_chunks
from ingest.prepare import Chunk, Preparer
from ingest.sources import SourceReject, SourceRow

ATTEMPTS = 5
"""How often a chunk is written when other processes delete its pictures at the same time."""


class RunHistory(Protocol):
    """Says under which run the next changes are kept, like an `IngestRun`."""

    @property
    def id(self) -> int | None:
        """The id of the run; None for a dry run."""
        ...

    def history_id(self) -> int | None:
        """The run under which the next changes are kept; None if they are not."""
        ...


@dataclass(slots=True)
class RowCounts:
    """What became of some rows: read = added + updated + unchanged + rejected.

    `images_embedded` counts pictures that were encoded; `images_reused` references to pictures that
    had been embedded before; `images_rejected` refused pictures, alone or with their row. Of the
    pictures with a web address, `images_downloaded` were transferred, and `images_not_modified` had
    not changed.
    """

    read: int = 0
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    images_embedded: int = 0
    images_reused: int = 0
    images_rejected: int = 0
    images_downloaded: int = 0
    images_not_modified: int = 0

    def add(self, other: RowCounts) -> None:
        """Add the counts of other rows."""
        for each in fields(RowCounts):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


@dataclass(frozen=True, slots=True)
class WrittenRows:
    """The counts of some rows that were written, and what was refused of them."""

    counts: RowCounts
    rejects: Sequence[SourceReject] = ()


class ChunkWriter:
    """Writes rows under every maintained model."""

    def __init__(
        self,
        catalog: CatalogService,
        encoders: MaintainedEncoders,
        preparer: Preparer,
        threads: int = ENCODERS,
    ) -> None:
        """`threads` is how many encode at the same time."""
        self._catalog = catalog
        self._encoders = encoders
        self._preparer = preparer
        self._prefetcher = Prefetcher(preparer, threads)
        self._downloads = (0, 0)

    def write(
        self, rows: Iterable[SourceRow | SourceReject], run: RunHistory
    ) -> Generator[WrittenRows]:
        """Write the rows, a chunk in a transaction; yields the outcome of each chunk, in order."""
        with closing(self._prefetcher):
            for chunk in self._prefetcher.chunks(in_chunks(rows)):
                yield self._write(chunk, run)

    def close(self) -> None:
        """End the threads of the preparer."""
        self._preparer.close()

    def _write(self, chunk: Chunk, run: RunHistory) -> WrittenRows:
        """Write one chunk as soon as it is encoded."""
        for _ in range(ATTEMPTS):
            try:
                changes, embedded = self._try_write(chunk, run)
            except ModelsChanged:
                self._encoders.refresh()
                chunk = self._prefetcher.restart(chunk)
            except (
                PicturesMissing,
                BadImage,
            ):  # BadImage: the file has changed since it was hashed
                chunk = self._prefetcher.restart(chunk)
            else:
                self._prefetcher.mark_written(chunk)
                return WrittenRows(self._counts(chunk, embedded, changes), chunk.rejects)
        raise PicturesMissing(
            "Another process deletes the pictures while they are loaded; try again later."
        )

    def _try_write(self, chunk: Chunk, run: RunHistory) -> tuple[list[BatchChange], int]:
        """The change of each entry, and the number of embedded pictures."""
        vectors = _vectors(chunk)
        active = vectors.pop(chunk.encoders.model.id)
        pictures = {sha256: new.data for sha256, new in chunk.new.items()}
        batch = Batch(chunk.entries, pictures, active, vectors)
        changes = self._catalog.write(batch, chunk.encoders.model, run.history_id())
        return list(changes.values()), len(active)

    def _counts(self, chunk: Chunk, embedded: int, changes: Sequence[BatchChange]) -> RowCounts:
        downloaded, not_modified = self._downloads
        self._downloads = self._preparer.download_counts()
        return RowCounts(
            read=len(chunk.rows),
            added=changes.count(BatchChange.ADDED),
            updated=changes.count(BatchChange.UPDATED),
            unchanged=changes.count(BatchChange.UNCHANGED),
            rejected=chunk.refused_rows,
            images_embedded=embedded,
            images_reused=sum(len(entry.pictures) for entry in chunk.entries) - embedded,
            images_rejected=sum(reject.image is not None for reject in chunk.rejects),
            images_downloaded=self._downloads[0] - downloaded,
            images_not_modified=self._downloads[1] - not_modified,
        )


def _vectors(chunk: Chunk) -> dict[int, dict[bytes, Vector]]:
    """Vectors of the chunk's new pictures by model id and sha256; waits until they are encoded."""
    vectors: dict[int, dict[bytes, Vector]] = {model.id: {} for model in chunk.encoders.models}
    for batch in chunk.encoding:
        for model_id, rows in batch.result().items():
            vectors[model_id].update(rows)
    return vectors
