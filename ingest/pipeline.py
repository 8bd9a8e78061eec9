"""The ingest pipeline: reads, encodes and writes a source in chunks, to bound its memory.

While one chunk is written, the next is encoded and the one after it read and decoded. Each chunk
is one transaction and unchanged rows are not written, so running an interrupted ingest again
completes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass

from app.catalog.batch_write import Batch, BatchChange, ModelsChanged, PicturesMissing
from app.catalog.ingest_run import IngestRun
from app.catalog.service import CatalogService
from app.errors import BadImage, BadSource
from app.types import Vector
from ingest.encoder_set import MaintainedEncoders
from ingest.prefetch import Prefetcher, in_chunks
from ingest.prepare import Chunk, Preparer
from ingest.rejects_file import RejectFile
from ingest.sources import SourceReject, SourceRow

ATTEMPTS = 5
"""How often a chunk is written when other processes delete its pictures at the same time."""


@dataclass(slots=True)
class IngestReport:
    """The result of a run. Rows: read = added + updated + unchanged + rejected.

    `run` is its id, and `undoable` whether what it changed is kept. `images_embedded` counts
    pictures that were encoded; `images_reused` references to pictures that had been embedded
    before; `images_rejected` refused pictures, alone or with their row. Of the pictures with a web
    address, `images_downloaded` were transferred, and `images_not_modified` had not changed.
    """

    run: int = 0
    read: int = 0
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    deleted: int = 0
    images_embedded: int = 0
    images_reused: int = 0
    images_rejected: int = 0
    images_downloaded: int = 0
    images_not_modified: int = 0
    seconds: float = 0.0
    undoable: bool = False

    def as_dict(self) -> dict[str, int | float]:
        """The counts by name."""
        return asdict(self)


IngestProgress = Callable[[IngestReport], object]
"""Called after every chunk with the report so far."""


class Ingest:
    """One run from a source into the catalogue, under every maintained model."""

    def __init__(
        self,
        catalog: CatalogService,
        encoders: MaintainedEncoders,
        preparer: Preparer,
        run: IngestRun,
        rejects: RejectFile,
    ) -> None:
        self._catalog = catalog
        self._encoders = encoders
        self._preparer = preparer
        self._prefetcher = Prefetcher(preparer)
        self._run = run
        self._rejects = rejects
        self._rejects_without_sku = 0
        self.report = IngestReport(run=run.id or 0)

    def run(
        self,
        rows: Iterable[SourceRow | SourceReject],
        *,
        prune: bool = False,
        progress: IngestProgress | None = None,
    ) -> IngestReport:
        """Write the good rows, refuse the others; with `prune`, delete products not in the source.

        No sku may be in two rows. For `prune`, the run must have remembered the products before the
        source was read, and seen the skus of all rows.

        Raises BadSource if pruning is not safe (no good row, or rows without a sku), and
        DatabaseUnavailable if the database goes away; then run it again.
        """
        began = time.monotonic()
        with closing(self._prefetcher):
            for chunk in self._prefetcher.chunks(in_chunks(rows)):
                self._write(chunk)
                self.report.seconds = round(time.monotonic() - began, 3)
                if progress:
                    progress(self.report)
        if prune:
            self._prune()
        report = self.report
        report.seconds = round(time.monotonic() - began, 3)
        report.undoable = self._run.is_kept and bool(report.added + report.updated + report.deleted)
        self._run.finished(self.report.as_dict())
        return self.report

    def _write(self, chunk: Chunk) -> None:
        """Write one chunk as soon as it is encoded, and count the changes."""
        for _ in range(ATTEMPTS):
            try:
                changes, embedded = self._try_write(chunk)
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
                self._record_rejects(chunk)
                self._count(chunk, embedded, changes)
                return
        raise PicturesMissing(
            "Another process deletes the pictures while they are loaded; try again later."
        )

    def _try_write(self, chunk: Chunk) -> tuple[list[BatchChange], int]:
        """The change of each entry, and the number of embedded pictures."""
        vectors = _vectors(chunk)
        active = vectors.pop(chunk.encoders.model.id)
        pictures = {sha256: new.data for sha256, new in chunk.new.items()}
        batch = Batch(chunk.entries, pictures, active, vectors)
        run_id = self._run.history_id()
        changes = self._catalog.write(batch, chunk.encoders.model, run_id)
        return list(changes.values()), len(active)

    def _record_rejects(self, chunk: Chunk) -> None:
        self._rejects.write(chunk.rejects)
        self._run.reject([asdict(reject) for reject in chunk.rejects])
        self._rejects_without_sku += sum(reject.sku is None for reject in chunk.rejects)

    def _count(self, chunk: Chunk, embedded: int, changes: Sequence[BatchChange]) -> None:
        report = self.report
        report.read += len(chunk.rows)
        report.added += changes.count(BatchChange.ADDED)
        report.updated += changes.count(BatchChange.UPDATED)
        report.unchanged += changes.count(BatchChange.UNCHANGED)
        report.rejected += chunk.refused_rows
        report.images_embedded += embedded
        report.images_reused += sum(len(entry.pictures) for entry in chunk.entries) - embedded
        report.images_downloaded, report.images_not_modified = self._preparer.download_counts()
        report.images_rejected += sum(reject.image is not None for reject in chunk.rejects)

    def _prune(self) -> None:
        """Delete products that are not in the source; a refused row keeps its product."""
        report = self.report
        check_prunable(report.read, report.rejected, self._rejects_without_sku)
        for skus in self._run.unseen():
            self.report.deleted += self._catalog.delete(
                skus, missing_ok=True, run_id=self._run.history_id()
            )


def check_prunable(read: int, rejected: int, without_sku: int) -> None:
    """Raise BadSource if it is not known which products the source lacks."""
    if without_sku:
        raise BadSource(
            f"Nothing was pruned: {without_sku} rows have no readable sku, so their products might "
            "be deleted. Correct the rows and run it again."
        )
    if read == rejected:
        raise BadSource("Nothing was pruned: no row of the source could be used.")


def _vectors(chunk: Chunk) -> dict[int, dict[bytes, Vector]]:
    """Vectors of the chunk's new pictures by model id and sha256; waits until they are encoded."""
    vectors: dict[int, dict[bytes, Vector]] = {model.id: {} for model in chunk.encoders.models}
    for batch in chunk.encoding:
        for model_id, rows in batch.result().items():
            vectors[model_id].update(rows)
    return vectors
