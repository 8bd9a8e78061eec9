"""Ingest: read, fetch, decode, encode, write, a chunk at a time, so that any source fits in memory.

While the encoder works on one chunk, the next is fetched and decoded. Every chunk is written in one
transaction and rows that are stored already are left alone, so a run that was interrupted is
finished by running it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass

from PIL import Image

from app.catalog import Batch, CatalogService, Change, ModelsChanged, PicturesMissing
from app.errors import BadImage, BadSource
from app.runs import IngestRun
from app.values import Vector
from ingest.prepare import Chunk, Preparer, decoded_bytes
from ingest.rejects import RejectFile
from ingest.sources import Reject, Row
from ingest.towers import Towers

CHUNK_ROWS = 64
CHUNK_PICTURES = 128
"""A chunk ends with the row that reaches either; two chunks are in memory at a time."""
ENCODED_AT_ONCE = 32
ENCODED_BYTES = 64 << 20
"""Bytes of decoded pictures above which a batch is encoded before it is full."""

ATTEMPTS = 5
"""How often a chunk is begun again when others delete its pictures meanwhile."""


@dataclass(slots=True)
class Report:
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


Progress = Callable[[Report], None]


class Ingest:
    """One run from a source into the catalogue, under every model that is kept up to date."""

    def __init__(
        self,
        catalog: CatalogService,
        towers: Towers,
        preparer: Preparer,
        run: IngestRun,
        rejects: RejectFile,
    ) -> None:
        self._catalog = catalog
        self._towers = towers
        self._preparer = preparer
        self._run = run
        self._rejects = rejects
        self._anonymous = 0
        self.report = Report()

    def run(
        self, rows: Iterable[Row | Reject], *, prune: bool = False, progress: Progress | None = None
    ) -> Report:
        """Write every row and refuse the bad ones; with `prune`, delete what the source lacks.

        Raises BadSource when pruning would be a guess (nothing good was read, or rows without a
        sku), and DatabaseUnavailable when the database goes away; then run it again.
        """
        began = time.monotonic()
        if prune:
            self._run.remember_products()
        with closing(self._ahead(_chunks(rows))) as prepared:
            for chunk in prepared:
                self._take(chunk)
                self.report.seconds = round(time.monotonic() - began, 3)
                if progress:
                    progress(self.report)
        if prune:
            self._prune()
        self.report.seconds = round(time.monotonic() - began, 3)
        self._run.finished(self.report.as_dict())
        return self.report

    def _ahead(self, chunks: Iterable[Sequence[Row | Reject]]) -> Generator[Chunk]:
        """The chunks, each prepared while the one before it is encoded and written."""
        with ThreadPoolExecutor(1, "prepare") as executor, closing(self._preparer):
            waiting: Future[Chunk] | None = None
            for rows in chunks:
                begun = executor.submit(self._preparer.prepare, self._unique(rows))
                if waiting is not None:
                    yield waiting.result()
                waiting = begun
            if waiting is not None:
                yield waiting.result()

    def _unique(self, rows: Sequence[Row | Reject]) -> list[Row | Reject]:
        """The rows, with those whose sku came before in this source turned into rejects."""
        first: dict[str, int] = {}
        for row in rows:
            if (sku := _sku(row)) is not None:
                first.setdefault(sku, row.line)
        first |= self._run.seen_before(first)
        return [_once(row, first) for row in rows]

    def _take(self, chunk: Chunk) -> None:
        """Encode and write one chunk, and count what became of it."""
        for _ in range(ATTEMPTS):
            pictures = {sha256: new.data for sha256, new in chunk.new.items()}
            try:
                vectors = self._encode(chunk)
                embedded = vectors.pop(self._towers.model.id)
                batch = Batch(chunk.entries, pictures, embedded, vectors)
                changes = self._catalog.write(batch, self._towers.model)
            except ModelsChanged:
                self._towers.renew()
                self._preparer.turn_to(self._towers.model, self._towers.input_side)
                chunk = self._preparer.prepare(chunk.rows)
            except (PicturesMissing, BadImage):  # the second: changed since it was prepared
                chunk = self._preparer.prepare(chunk.rows)
            else:
                self._refuse(chunk)
                self._count(chunk, len(embedded), list(changes.values()))
                return
        raise PicturesMissing("Pictures are deleted as fast as they are loaded; try again later.")

    def _encode(self, chunk: Chunk) -> dict[int, dict[bytes, Vector]]:
        """Vectors of the chunk's new pictures, less those the chunk before has brought since.

        By model (id) and sha256; the active model is always among them.
        """
        embedded = self._catalog.known(sorted(chunk.new), self._towers.model)
        wanted = [sha256 for sha256 in chunk.new if not embedded.get(sha256)]
        vectors: dict[int, dict[bytes, Vector]] = {self._towers.model.id: {}}
        waiting: dict[bytes, Image.Image] = {}
        for sha256 in wanted:
            waiting[sha256] = self._preparer.picture(chunk.new[sha256])
            if len(waiting) == ENCODED_AT_ONCE or _bytes(waiting) > ENCODED_BYTES:
                self._add(vectors, waiting)
                waiting = {}
        self._add(vectors, waiting)
        return vectors

    def _add(
        self, vectors: dict[int, dict[bytes, Vector]], pictures: dict[bytes, Image.Image]
    ) -> None:
        if not pictures:
            return
        for model_id, rows in self._towers.encode(list(pictures.values())).items():
            vectors.setdefault(model_id, {}).update(zip(pictures, rows, strict=True))

    def _refuse(self, chunk: Chunk) -> None:
        self._rejects.write(chunk.rejects)
        self._run.reject([asdict(reject) for reject in chunk.rejects])
        self._anonymous += sum(reject.sku is None for reject in chunk.rejects)

    def _count(self, chunk: Chunk, embedded: int, changes: Sequence[Change]) -> None:
        report = self.report
        report.read += len(chunk.rows)
        report.added += changes.count(Change.ADDED)
        report.updated += changes.count(Change.UPDATED)
        report.unchanged += changes.count(Change.UNCHANGED)
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


def _chunks(rows: Iterable[Row | Reject]) -> Iterator[list[Row | Reject]]:
    chunk: list[Row | Reject] = []
    pictures = 0
    for row in rows:
        chunk.append(row)
        pictures += len(row.images) if isinstance(row, Row) else 0
        if len(chunk) >= CHUNK_ROWS or pictures >= CHUNK_PICTURES:
            yield chunk
            chunk, pictures = [], 0
    if chunk:
        yield chunk


def _bytes(pictures: dict[bytes, Image.Image]) -> int:
    return sum(map(decoded_bytes, pictures.values()))


def _sku(row: Row | Reject) -> str | None:
    return row.product.sku if isinstance(row, Row) else row.sku


def _once(row: Row | Reject, first: dict[str, int]) -> Row | Reject:
    if isinstance(row, Reject) or first[row.product.sku] == row.line:
        return row
    before = first[row.product.sku]
    return Reject(row.line, row.product.sku, f"the sku is already in line {before} of the source")
