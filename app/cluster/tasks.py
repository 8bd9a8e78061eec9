"""The parts of a job, as a worker process does them. All are idempotent: the table decides."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from app.catalog.service import CatalogService
from app.cluster.job import Job
from app.models.backfill import MAX_REASONS, EmbeddedPart, embed_range
from ingest.chunk_writer import ChunkWriter, RowCounts, WrittenRows
from ingest.encoder_set import MaintainedEncoders
from ingest.local_files import LocalPictures
from ingest.open_source import AnyPictures, download_cache, remote_pictures
from ingest.originals import Originals
from ingest.prepare import Preparer
from ingest.sources import SourceReject, SourceRow


def embed_pictures(
    job: Job, model_id: int, folders: Sequence[Path], share: int, ids: range, count: int
) -> EmbeddedPart:
    """Embed the pictures of a range of ids that have no embedding of a model.

    `count` of them had none when the range was chosen. Originals are files below `folders`, or
    downloaded at a `share` (one in so many) of the rate of one machine.
    """
    app = job.app()
    encoder = app.encoders.for_model(model_id)
    model = next(each for each in app.catalog.models() if each.id == model_id)
    with closing(remote_pictures(app.settings, download_cache(app.settings), share)) as remote:
        find = Originals(folders, app.limits, encoder.input_side, remote).find
        parts = list(embed_range(app.engine, model, encoder, find, ids, readers=job.cpus))
    failed = sum(part.failed for part in parts)
    reasons = [reason for part in parts for reason in part.reasons]
    embedded = sum(part.embedded for part in parts)
    return EmbeddedPart(embedded, count - failed, failed, tuple(reasons[:MAX_REASONS]))


@dataclass(frozen=True, slots=True)
class _RunElsewhere:
    """A run that another process is in charge of."""

    id: int | None
    history: int | None

    def history_id(self) -> int | None:
        return self.history


def write_rows(
    job: Job,
    run: int,
    folder: Path | None,
    share: int,
    history: int | None,
    rows: Sequence[SourceRow | SourceReject],
) -> WrittenRows:
    """Write rows of a source with their pictures, while the run with this id is alive.

    `history` is the run under which changes are kept, `folder` that of the pictures. Raises
    RunEnded.
    """
    app = job.app()
    catalog = CatalogService(app.engine, app.catalog.history, during=run)
    local = LocalPictures(folder, max_bytes=app.limits.max_bytes) if folder else None
    remote = remote_pictures(app.settings, download_cache(app.settings), share)
    encoders = MaintainedEncoders(catalog, app.encoders)
    preparer = Preparer(catalog, encoders, AnyPictures(local, remote), app.limits, threads=job.cpus)
    counts, rejects = RowCounts(), list[SourceReject]()
    with closing(ChunkWriter(catalog, encoders, preparer, threads=job.cpus)) as writer:
        for part in writer.write(rows, _RunElsewhere(run, history)):
            counts.add(part.counts)
            rejects += part.rejects
    return WrittenRows(counts, rejects)
