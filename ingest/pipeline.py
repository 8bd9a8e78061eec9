"""One run of an ingest: writes the rows of a source, records what was refused, prunes.

Each chunk of rows is one transaction and unchanged rows are not written, so running an interrupted
ingest again completes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Protocol

from app.catalog.ingest_run import IngestRun
from app.catalog.service import CatalogService
from app.errors import BadSource
from ingest.chunk_writer import RowCounts, RunHistory, WrittenRows
from ingest.rejects_file import RejectFile
from ingest.sources import SourceReject, SourceRow


class RowWriter(Protocol):
    """Writes rows in this process (`ChunkWriter`) or in others."""

    def write(
        self, rows: Iterable[SourceRow | SourceReject], run: RunHistory
    ) -> Generator[WrittenRows]:
        """Write the rows in parts; yields the outcome of each when it is committed."""
        ...

    def close(self) -> None:
        """Release what it holds, also if nothing was written."""


@dataclass(slots=True)
class IngestReport(RowCounts):
    """The result of a run: its id, the counts of all its rows, the number of deleted products.

    `undoable` is whether what it changed is kept.
    """

    run: int = 0
    deleted: int = 0
    seconds: float = 0.0
    undoable: bool = False

    def as_dict(self) -> dict[str, int | float]:
        """The counts by name."""
        return {"run": self.run} | asdict(self)


IngestProgress = Callable[[IngestReport], object]
"""Called after every chunk with the report so far."""


class Ingest:
    """One run from a source into the catalogue, under every maintained model."""

    def __init__(
        self, catalog: CatalogService, writer: RowWriter, run: IngestRun, rejects: RejectFile
    ) -> None:
        self._catalog = catalog
        self._writer = writer
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
        with closing(self._writer.write(rows, self._run)) as parts:
            for part in parts:
                self._record(part)
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

    def _record(self, part: WrittenRows) -> None:
        """Record what was refused, and add the counts."""
        self._rejects.write(part.rejects)
        self._run.reject([asdict(reject) for reject in part.rejects])
        self._rejects_without_sku += sum(reject.sku is None for reject in part.rejects)
        self.report.add(part.counts)

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
