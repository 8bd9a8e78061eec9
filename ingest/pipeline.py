"""Ingest: from a source into the catalogue a chunk at a time, so that any source fits in memory.

While one chunk is written, the next is encoded and the one after it fetched and decoded. Every
chunk is written in one transaction and rows that are stored already are left alone, so a run that
was interrupted is finished by running it again.
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
from ingest.rejects import RejectFile
from ingest.sources import SourceReject, SourceRow

ATTEMPTS = 5
"""How often a chunk is begun again when others delete its pictures meanwhile."""


@dataclass(slots=True)
class IngestReport:
    """What a run did. Rows: read = added + updated + unchanged + rejected.

    `images_embedded` pictures went through the encoder; `images_reused` mentions of a picture had
    bytes that were embedded before; `images_rejected` were refused, alone or with their row.
    """

    read: int = 0
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    deleted: int = 0
    images_embedded: int = 0
    images_reused: int = 0
    images_rejected: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, int | float]:
        """The counts by name."""
        return asdict(self)


IngestProgress = Callable[[IngestReport], None]


class Ingest:
    """One run from a source into the catalogue, under every model that is kept up to date."""

    def __init__(
        self,
        catalog: CatalogService,
        towers: MaintainedEncoders,
        preparer: Preparer,
        run: IngestRun,
        rejects: RejectFile,
    ) -> None:
        self._catalog = catalog
        self._towers = towers
        self._ahead = Prefetcher(preparer)
        self._run = run
        self._rejects = rejects
        self._anonymous = 0
        self.report = IngestReport()

    def run(
        self,
        rows: Iterable[SourceRow | SourceReject],
        *,
        prune: bool = False,
        progress: IngestProgress | None = None,
    ) -> IngestReport:
        """Write every row and refuse the bad ones; with `prune`, delete what the source lacks.

        Raises BadSource when pruning would be a guess (nothing good was read, or rows without a
        sku), and DatabaseUnavailable when the database goes away; then run it again.
        """
        began = time.monotonic()
        if prune:
            self._run.remember_products()
        with closing(self._ahead):
            for chunk in self._ahead.chunks(map(self._unique, in_chunks(rows))):
                self._take(chunk)
                self.report.seconds = round(time.monotonic() - began, 3)
                if progress:
                    progress(self.report)
        if prune:
            self._prune()
        self.report.seconds = round(time.monotonic() - began, 3)
        self._run.finished(self.report.as_dict())
        return self.report

    def _unique(self, rows: Sequence[SourceRow | SourceReject]) -> list[SourceRow | SourceReject]:
        """The rows, with those whose sku came before in this source turned into rejects."""
        first: dict[str, int] = {}
        for row in rows:
            if (sku := _sku(row)) is not None:
                first.setdefault(sku, row.line)
        first |= self._run.seen_before(first)
        return [_once(row, first) for row in rows]

    def _take(self, chunk: Chunk) -> None:
        """Write one chunk when it is encoded, and count what became of it."""
        for _ in range(ATTEMPTS):
            try:
                changes, embedded = self._write(chunk)
            except ModelsChanged:
                self._towers.renew()
                chunk = self._ahead.again(chunk)
            except (PicturesMissing, BadImage):  # the second: changed since it was prepared
                chunk = self._ahead.again(chunk)
            else:
                self._ahead.written(chunk)
                self._refuse(chunk)
                self._count(chunk, embedded, changes)
                return
        raise PicturesMissing("Pictures are deleted as fast as they are loaded; try again later.")

    def _write(self, chunk: Chunk) -> tuple[list[BatchChange], int]:
        """What became of the entries, and how many pictures were embedded."""
        vectors = _vectors(chunk)
        active = vectors.pop(chunk.fleet.model.id)
        pictures = {sha256: new.data for sha256, new in chunk.new.items()}
        batch = Batch(chunk.entries, pictures, active, vectors)
        return list(self._catalog.write(batch, chunk.fleet.model).values()), len(active)

    def _refuse(self, chunk: Chunk) -> None:
        self._rejects.write(chunk.rejects)
        self._run.reject([asdict(reject) for reject in chunk.rejects])
        self._anonymous += sum(reject.sku is None for reject in chunk.rejects)

    def _count(self, chunk: Chunk, embedded: int, changes: Sequence[BatchChange]) -> None:
        report = self.report
        report.read += len(chunk.rows)
        report.added += changes.count(BatchChange.ADDED)
        report.updated += changes.count(BatchChange.UPDATED)
        report.unchanged += changes.count(BatchChange.UNCHANGED)
        report.rejected += chunk.refused_rows
        report.images_embedded += embedded
        report.images_reused += sum(len(entry.pictures) for entry in chunk.entries) - embedded
        report.images_rejected += sum(reject.image is not None for reject in chunk.rejects)

    def _prune(self) -> None:
        """Delete the products the source no longer has; a refused row keeps its product."""
        if self._anonymous:
            raise BadSource(
                f"Nothing was pruned: {self._anonymous} rows have no readable sku, and their "
                "products could not be told from those to delete. Mend the rows and run it again."
            )
        if self.report.read == self.report.rejected:
            raise BadSource("Nothing was pruned: no row of the source could be used.")
        for skus in self._run.unseen():
            self.report.deleted += self._catalog.delete(skus, missing_ok=True)


def _vectors(chunk: Chunk) -> dict[int, dict[bytes, Vector]]:
    """Vectors of the chunk's new pictures by model (id) and sha256, once they are there."""
    vectors: dict[int, dict[bytes, Vector]] = {model.id: {} for model in chunk.fleet.models}
    for batch in chunk.encoded:
        for model_id, rows in batch.result().items():
            vectors[model_id].update(rows)
    return vectors


def _sku(row: SourceRow | SourceReject) -> str | None:
    return row.product.sku if isinstance(row, SourceRow) else row.sku


def _once(row: SourceRow | SourceReject, first: dict[str, int]) -> SourceRow | SourceReject:
    if isinstance(row, SourceReject) or first[row.product.sku] == row.line:
        return row
    before = first[row.product.sku]
    return SourceReject(
        row.line, row.product.sku, f"the sku is already in line {before} of the source"
    )
