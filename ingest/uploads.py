"""Writes products that a program sends: rows with their pictures as bytes or by address.

Each group of rows is one transaction, as in an ingest; what one call writes is one run, which can
be undone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace

from sqlalchemy import Engine

from app.catalog.batch_write import Batch, ModelsChanged, PicturesMissing
from app.catalog.ingest_run import IngestRun, ingest_run
from app.catalog.service import CatalogService
from app.encoders.base import EncoderProvider
from app.errors import BadImage
from app.images.decoding import ImageLimits
from app.types import Product, Vector
from ingest.chunk_writer import ATTEMPTS
from ingest.encoder_set import MaintainedEncoders
from ingest.picture_reader import PictureReader
from ingest.prepare import Chunk, Preparer
from ingest.repeated_skus import reject_repeated
from ingest.sources import SourceReject, SourceRow

GROUP_ROWS = 64
"""Rows of one transaction."""

SOURCE = "HTTP API"
"""How the runs of uploads are recorded."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """A row that deletes a product."""

    line: int
    sku: str


UploadRow = SourceRow | SourceReject | Deletion


@dataclass(frozen=True, slots=True)
class UploadResult:
    """What became of a row: "added", "updated", "unchanged", "deleted", or "refused" with a reason.

    `pictures` are those that were refused: their names and the reasons.
    """

    line: int
    sku: str | None
    change: str
    reason: str | None = None
    pictures: tuple[tuple[str, str], ...] = ()


class UploadedPictures(PictureReader):
    """The pictures of rows, by name: bytes that were sent, else an address to download from.

    May be shared by threads, like the function that downloads.
    """

    def __init__(self, files: Mapping[str, bytes], download: Callable[[str], bytes]) -> None:
        self._files = files
        self._download = download

    def read(self, name: str) -> bytes:
        """The bytes of a picture. Raises BadImage."""
        if name in self._files:
            return self._files[name]
        return self._download(name)


class Uploads:
    """Writes rows under every maintained model. Thread-safe.

    `admitted` is entered for each group of rows: it limits how many are written at a time.
    """

    def __init__(
        self,
        engine: Engine,
        catalog: CatalogService,
        encoders: EncoderProvider,
        limits: ImageLimits,
        admitted: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self._engine = engine
        self._catalog = catalog
        self._encoders = encoders
        self._limits = limits
        self._admitted = admitted

    def write(
        self, rows: Iterable[UploadRow], pictures: UploadedPictures
    ) -> Iterator[UploadResult]:
        """Write the rows in groups; yields the result of each row, in order, after its group.

        Products keep the fields that a row does not give. A row is refused if its sku is in an
        earlier row, or if none of its pictures can be read. An error ends it; the groups before it
        are written, and sending the same rows again completes them.

        Raises NoModel, ModelMismatch, Busy and DatabaseUnavailable.
        """
        encoders = MaintainedEncoders(self._catalog, self._encoders)
        preparer = Preparer(self._catalog, encoders, pictures, self._limits)
        model = encoders.current.model
        counts: dict[str, int] = {}
        with (
            closing(preparer),
            ingest_run(self._engine, SOURCE, model, self._catalog.history) as run,
        ):
            for group in _groups(rows):
                with self._admitted():
                    results = self._write_group(run, group, encoders, preparer)
                for result in results:
                    counts[result.change] = counts.get(result.change, 0) + 1
                    yield result
            run.finished({"read": sum(counts.values()), **counts})

    def _write_group(
        self,
        run: IngestRun,
        group: Sequence[UploadRow],
        encoders: MaintainedEncoders,
        preparer: Preparer,
    ) -> list[UploadResult]:
        deletions = {row.line: row for row in group if isinstance(row, Deletion)}
        checked = reject_repeated(run, [_as_source_row(row) for row in group])
        refused = {row.line for row in checked if isinstance(row, SourceReject)}
        written = self._write_rows(
            run, [row for row in checked if row.line not in deletions], encoders, preparer
        )
        for row in checked:
            if isinstance(row, SourceReject):
                written[row.line] = UploadResult(row.line, row.sku, "refused", row.reason)
        for line, deletion in deletions.items():
            if line not in refused:
                count = self._catalog.delete(
                    [deletion.sku], missing_ok=True, run_id=run.history_id()
                )
                change = "deleted" if count else "unchanged"
                written[line] = UploadResult(line, deletion.sku, change)
        return [written[row.line] for row in group]

    def _write_rows(
        self,
        run: IngestRun,
        rows: Sequence[SourceRow | SourceReject],
        encoders: MaintainedEncoders,
        preparer: Preparer,
    ) -> dict[int, UploadResult]:
        for _ in range(ATTEMPTS):
            chunk = preparer.prepare(rows)
            try:
                batch = _batch(chunk, preparer)
                changes = self._catalog.write(batch, chunk.encoders.model, run.history_id())
            except ModelsChanged:
                encoders.refresh()
            except (PicturesMissing, BadImage):
                continue
            else:
                return _results(chunk, {sku: str(change) for sku, change in changes.items()})
        raise PicturesMissing("Another process deletes the pictures; try again later.")


def _groups(rows: Iterable[UploadRow]) -> Iterator[list[UploadRow]]:
    group: list[UploadRow] = []
    for row in rows:
        group.append(row)
        if len(group) == GROUP_ROWS:
            yield group
            group = []
    if group:
        yield group


def _as_source_row(row: UploadRow) -> SourceRow | SourceReject:
    """The row, with a deletion as a row that has its sku."""
    if isinstance(row, Deletion):
        return SourceRow(row.line, Product(row.sku), ())
    return row


def _batch(chunk: Chunk, preparer: Preparer) -> Batch:
    """What is written of a chunk, with the vectors of its new pictures."""
    vectors: dict[int, dict[bytes, Vector]] = {model.id: {} for model in chunk.encoders.models}
    if chunk.new:
        inputs = [preparer.inputs(new, chunk.encoders) for new in chunk.new.values()]
        for model_id, rows in chunk.encoders.encode(inputs).items():
            vectors[model_id] = dict(zip(chunk.new, rows, strict=True))
    pictures = {sha256: new.data for sha256, new in chunk.new.items()}
    active = vectors.pop(chunk.encoders.model.id)
    return Batch(chunk.entries, pictures, active, vectors)


def _results(chunk: Chunk, changes: Mapping[str, str]) -> dict[int, UploadResult]:
    """The result of each row, by its line."""
    results = {}
    for row in chunk.rows:
        if isinstance(row, SourceReject):
            continue
        bad = tuple(
            (each.image, each.reason)
            for each in chunk.rejects
            if each.line == row.line and each.image is not None
        )
        result = UploadResult(row.line, row.product.sku, "refused", pictures=bad)
        if row.product.sku in changes:
            result = replace(result, change=changes[row.product.sku])
        else:
            result = replace(result, reason="none of its pictures can be read")
        results[row.line] = result
    return results
