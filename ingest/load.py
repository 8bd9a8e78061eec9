"""`load`: one ingest from a source on disk, with everything it needs put together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from sqlalchemy import Engine

from app.catalog.bulk_load import ProgressCallback, bulk
from app.catalog.ingest_run import ingest_run
from app.catalog.service import CatalogService
from app.db.queries import products
from app.encoders.base import EncoderProvider
from app.errors import BadInput, BadSource
from app.images.decoding import ImageLimits
from ingest.encoder_set import MaintainedEncoders
from ingest.local_files import LocalPictures
from ingest.pipeline import Ingest, IngestProgress, IngestReport
from ingest.prepare import Preparer
from ingest.rejects import reject_file, unwritable
from ingest.sources import SourceRow, read


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
    progress: IngestProgress | None = None,
    tell: ProgressCallback = lambda said: None,
) -> IngestReport:
    """Load a CSV or a folder of pictures into the catalogue; `images` is where its pictures lie.

    `rejects` becomes a CSV of what was refused. Raises BadSource when
    the source cannot be read at all, NoModel before `lookalike init`, DatabaseUnavailable when the
    database goes away; what was written until then stays, and the same call goes on from there.
    """
    rows = read(source, encoding=encoding)
    if rejects is not None and _same(rejects, source):
        raise BadInput(f"The rejects would overwrite the source {source}; name another file.")
    folder = images or (source if source.is_dir() else source.parent)
    pictures = LocalPictures(folder, max_bytes=limits.max_bytes)
    towers = MaintainedEncoders(catalog, encoders)
    preparer = Preparer(catalog, towers, pictures, limits)
    with (
        reject_file(rejects) as file,
        ingest_run(engine, str(source), towers.now.model) as run,
        bulk(engine, catalog.models(), new_pictures(engine, source, encoding), tell),
    ):
        job = Ingest(catalog, towers, preparer, run, file)
        return job.run(rows, prune=prune, progress=progress)


def _same(rejects: Path, source: Path) -> bool:
    try:
        return rejects.exists() and rejects.samefile(source)
    except OSError as exc:
        raise unwritable(str(rejects), exc) from exc


AT_ONCE = 5000
"""Rows that are looked up together."""


def new_pictures(engine: Engine, source: Path, encoding: str) -> int:
    """How many pictures the products show that the catalogue lacks.

    More than will be embedded where they share pictures, and fewer where products that are there
    show others than before. A source is counted as far as it can be read.
    """
    found = 0
    with suppress(BadSource), engine.connect() as connection:
        for shown in _portions(read(source, encoding=encoding)):
            known = products.ids(connection, list(shown))
            found += sum(images for sku, images in shown.items() if sku not in known)
    return found


def _portions(rows: Iterable[object]) -> Iterator[dict[str, int]]:
    """Skus with the number of their pictures, so many at a time."""
    good = (row for row in rows if isinstance(row, SourceRow))
    while portion := {row.product.sku: len(row.images) for row in islice(good, AT_ONCE)}:
        yield portion
