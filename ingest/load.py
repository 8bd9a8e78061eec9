"""Loads one source from disk into the catalogue, with everything that takes put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Engine

from app.catalog.fallback_index import maintain_after_load
from app.catalog.ingest_run import IngestRun, dry_run, ingest_run
from app.catalog.service import CatalogService
from app.catalog.statistics import analyse_new
from app.encoders.base import EncoderProvider
from app.errors import BadInput
from app.images.decoding import ImageLimits
from app.types import ProgressCallback
from ingest.chunk_writer import ChunkWriter
from ingest.encoder_set import MaintainedEncoders
from ingest.feeds.formats import AUTO, read_source
from ingest.local_files import LocalPictures
from ingest.loss_limit import Losses, count_losses
from ingest.open_source import OpenSource
from ingest.pipeline import Ingest, IngestReport, RowWriter
from ingest.prepare import Preparer
from ingest.preview import Preview, preview, preview_prune
from ingest.prune_limit import PruneLimit
from ingest.rejects_file import RejectCallback, reject_file, unwritable
from ingest.repeated_skus import reject_repeated
from ingest.row_buffer import RowBuffer
from ingest.sources import SourceReject, SourceRow

EXAMPLES = 5
"""Skus that are named when too many products would be deleted."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a source is read, and what a load may do.

    `format` is one of `formats.FORMATS`. `images` is the folder of the pictures, if not that of the
    source; `rejects` becomes a CSV of the rows and pictures that were refused. `prune` deletes the
    products that are not in the source, up to `prune_limit`. `force` allows that most fields are
    emptied, or most pictures taken, of the products that the source has.
    """

    images: Path | None = None
    rejects: Path | None = None
    encoding: str = "utf-8"
    prune: bool = False
    prune_limit: PruneLimit = field(default_factory=PruneLimit)
    force: bool = False
    format: str = AUTO


DEFAULTS = LoadOptions()

LoadProgress = Callable[[IngestReport, int], object]
"""Called after every chunk with the report so far and the number of rows in the source."""


def load(
    engine: Engine,
    catalog: CatalogService,
    encoders: EncoderProvider,
    limits: ImageLimits,
    source: Path | OpenSource,
    options: LoadOptions = DEFAULTS,
    *,
    writer: RowWriter | None = None,
    progress: LoadProgress = lambda report, rows: None,
    notify: ProgressCallback = lambda message: None,
    rejected: RejectCallback = lambda reject: None,
) -> IngestReport:
    """Load a file or a folder of pictures, or an open source, into the catalogue.

    The source is read once, before anything is written. `writer` writes its rows, by default in
    this process; another one reads pictures and loads encoders by itself. `notify` gets messages
    about pgvector's index, and `rejected` each refused row and picture.

    Nothing is written, and BadInput raised, if the run would delete more than the limit of
    `options`, or empty too many fields or take too many pictures (`loss_limit.MAX_LOSS`).

    Raises BadSource if the source cannot be read, NoModel before `lookalike init`, and
    DatabaseUnavailable if the database goes away; what was written until then stays, and the same
    call continues from there.
    """
    opened = _opened(source, options, limits)
    if writer is None:
        maintained = MaintainedEncoders(catalog, encoders)
        preparer = Preparer(catalog, maintained, opened.pictures, limits)
        writer = ChunkWriter(catalog, maintained, preparer)
    with (
        closing(writer),
        reject_file(options.rejects, rejected) as file,
        ingest_run(engine, opened.name, catalog.model(), catalog.history) as run,
        RowBuffer() as buffer,
    ):
        losses = _read_all(engine, run, opened.rows, buffer, options)
        _check(losses, run, options)
        job = Ingest(catalog, writer, run, file)
        report = job.run(
            buffer, prune=options.prune, progress=lambda report: progress(report, len(buffer))
        )
        analyse_new(engine)  # first: a table with an index no longer counts as never analysed
        maintain_after_load(engine, notify)
        return report


def preview_load(
    engine: Engine,
    catalog: CatalogService,
    encoders: EncoderProvider,
    limits: ImageLimits,
    source: Path | OpenSource,
    options: LoadOptions = DEFAULTS,
) -> Preview:
    """What `load` with the same arguments would change. Only the file of rejects is written.

    Raises BadSource and NoModel as `load` does.
    """
    opened = _opened(source, options, limits)
    maintained = MaintainedEncoders(catalog, encoders)
    preparer = Preparer(catalog, maintained, opened.pictures, limits)
    with (
        closing(preparer),
        reject_file(options.rejects) as file,
        dry_run(engine) as run,
        RowBuffer() as buffer,
    ):
        losses = _read_all(engine, run, opened.rows, buffer, options)
        result = preview(catalog, preparer, buffer, file)
        refusals = [_refusal(lambda: _check(losses, run, options))]
        if options.prune:
            refusals.append(_refusal(lambda: preview_prune(result, run)))
        result.refused = next(filter(None, refusals), None)
        return result


def _opened(source: Path | OpenSource, options: LoadOptions, limits: ImageLimits) -> OpenSource:
    if isinstance(source, OpenSource):
        return source
    rows = read_source(source, encoding=options.encoding, format=options.format)
    check_rejects(options.rejects, source)
    folder = options.images or (source if source.is_dir() else source.parent)
    return OpenSource(str(source), rows, LocalPictures(folder, max_bytes=limits.max_bytes))


def check_rejects(rejects: Path | None, source: Path | str) -> None:
    """Raise BadInput if the file of rejects is the source."""
    if rejects is not None and _same(rejects, Path(source)):
        raise BadInput(f"The rejects would overwrite the source {source}; name another file.")


def _read_all(
    engine: Engine,
    run: IngestRun,
    rows: Iterator[SourceRow | SourceReject],
    buffer: RowBuffer,
    options: LoadOptions,
) -> Losses:
    """Read the source into the buffer and count what it would change."""
    if options.prune:
        run.remember_products()
    return count_losses(engine, buffer.fill(rows, lambda block: reject_repeated(run, block)))


def _check(losses: Losses, run: IngestRun, options: LoadOptions) -> None:
    """Raise BadInput if the run would take or delete too much."""
    objections = [None if options.force else losses.objection]
    if options.prune:
        unseen = run.count_unseen(EXAMPLES)
        limit = options.prune_limit
        objections.append(limit.objection(unseen.count, unseen.total, unseen.examples))
    if reasons := [reason for reason in objections if reason]:
        raise BadInput(" ".join(["Nothing was written.", *reasons, "--dry-run shows the changes."]))


def _refusal(check: Callable[[], object]) -> str | None:
    """The message of the BadInput that a check raises, if it does."""
    try:
        check()
    except BadInput as exc:
        return str(exc)
    return None


def _same(rejects: Path, source: Path) -> bool:
    try:
        return rejects.exists() and source.exists() and rejects.samefile(source)
    except OSError as exc:
        raise unwritable(str(rejects), exc) from exc
