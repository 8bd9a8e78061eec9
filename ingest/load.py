"""Loads one source from disk into the catalogue, with everything that takes put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from sqlalchemy import Engine

from app.catalog.bulk_load import bulk
from app.catalog.ingest_run import ingest_run
from app.catalog.service import CatalogService
from app.db.queries import products
from app.encoders.base import EncoderProvider
from app.errors import BadInput
from app.images.decoding import ImageLimits
from app.types import ProgressCallback
from ingest.encoder_set import MaintainedEncoders
from ingest.local_files import LocalPictures
from ingest.pipeline import Ingest, IngestReport
from ingest.prepare import Preparer
from ingest.rejects_file import reject_file, unwritable
from ingest.row_buffer import RowBuffer
from ingest.sources import SourceReject, SourceRow, read

LOOKUP_ROWS = 5000
"""Rows whose skus are looked up in one statement."""

LoadProgress = Callable[[IngestReport, int], object]
"""Called after every chunk with the report so far and the number of rows in the source."""


def load(
    engine: Engine,
    catalog: CatalogService,
    encoders: EncoderProvider,
    limits: ImageLimits,
    source: Path,
    *,
    images: Path | None = None,
    rejects: Path | None = None,
    prune: bool = False,
    encoding: str = "utf-8",
    progress: LoadProgress = lambda report, rows: None,
    notify: ProgressCallback = lambda message: None,
) -> IngestReport:
    """Load a CSV or a folder of pictures into the catalogue; `images` is its folder of pictures.

    The source is read once, before anything is written. `rejects` becomes a CSV of the rows and
    pictures that were refused. `notify` gets messages about pgvector's index.

    Raises BadSource if the source cannot be read, NoModel before `lookalike init`, and
    DatabaseUnavailable if the database goes away; what was written until then stays, and the same
    call continues from there.
    """
    rows = read(source, encoding=encoding)
    if rejects is not None and _same(rejects, source):
        raise BadInput(f"The rejects would overwrite the source {source}; name another file.")
    folder = images or (source if source.is_dir() else source.parent)
    pictures = LocalPictures(folder, max_bytes=limits.max_bytes)
    maintained = MaintainedEncoders(catalog, encoders)
    preparer = Preparer(catalog, maintained, pictures, limits)
    with (
        reject_file(rejects) as file,
        ingest_run(engine, str(source), maintained.current.model) as run,
        RowBuffer() as buffer,
    ):
        if prune:
            run.remember_products()
        added = count_new_pictures(engine, buffer.fill(rows))
        with bulk(engine, catalog.models(), added, notify):
            job = Ingest(catalog, maintained, preparer, run, file)
            return job.run(
                buffer, prune=prune, progress=lambda report: progress(report, len(buffer))
            )


def _same(rejects: Path, source: Path) -> bool:
    try:
        return rejects.exists() and rejects.samefile(source)
    except OSError as exc:
        raise unwritable(str(rejects), exc) from exc


def count_new_pictures(engine: Engine, rows: Iterable[SourceRow | SourceReject]) -> int:
    """The number of pictures of products that the catalogue lacks.

    More than will be embedded if products share pictures, and fewer if products in the catalogue
    get other pictures.
    """
    count = 0
    with engine.connect() as connection:
        for images_by_sku in _batches(rows):
            known = products.ids(connection, list(images_by_sku))
            count += sum(images for sku, images in images_by_sku.items() if sku not in known)
    return count


def _batches(rows: Iterable[SourceRow | SourceReject]) -> Iterator[dict[str, int]]:
    """The number of pictures by sku, for LOOKUP_ROWS rows at a time."""
    good = (row for row in rows if isinstance(row, SourceRow))
    while batch := {row.product.sku: len(row.images) for row in islice(good, LOOKUP_ROWS)}:
        yield batch
