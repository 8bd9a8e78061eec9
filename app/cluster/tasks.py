"""The parts of a job, as a worker process does them. All are idempotent: the table decides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.catalog.service import CatalogService
from app.cluster.job import Job
from app.index import faiss_index, faiss_parts
from app.index.embedding_reader import read_ids, read_pages
from app.index.faiss_index import Code
from app.index.faiss_parts import PartBytes
from app.index.id_selectors import Ids
from app.models.backfill import MAX_REASONS, EmbeddedPart, embed_range
from app.types import EmbeddingRows, Model, Vectors
from ingest.chunk_writer import ChunkWriter, RowCounts, WrittenRows
from ingest.encoder_set import MaintainedEncoders
from ingest.local_files import LocalPictures
from ingest.open_source import AnyPictures, download_cache, remote_pictures
from ingest.originals import Originals
from ingest.prepare import Preparer
from ingest.sources import SourceReject, SourceRow


def embed_pictures(
    job: Job, model: Model, folders: Sequence[Path], share: int, ids: range, count: int
) -> EmbeddedPart:
    """Embed the pictures of a range of ids that have no embedding of a model.

    `count` of them had none when the range was chosen. Originals are files below `folders`, or
    downloaded at a `share` (one in so many) of the rate of one machine. Raises ModelNotMaintained
    if the model was dropped.
    """
    with job.services() as app:
        encoder = app.encoders.for_model(model.id)
        with closing(remote_pictures(app.settings, download_cache(app.settings), share)) as remote:
            find = Originals(folders, app.limits, encoder.input_side, remote).find
            parts = list(embed_range(app.engine, model, encoder, find, ids, readers=job.cpus))
        failed = sum(part.failed for part in parts)
        reasons = [reason for part in parts for reason in part.reasons]
        embedded = sum(part.embedded for part in parts)
        return EmbeddedPart(embedded, count - failed, failed, tuple(reasons[:MAX_REASONS]))


def encode_pages(
    job: Job, model: Model, exported: str, centroids: Vectors, code: Code, pages: range
) -> PartBytes:
    """The inverted lists, in a code, of the vectors in a range of table pages of an exported
    snapshot; `centroids` has shape (lists, dim)."""
    with job.services() as app:
        return _encoded(centroids, code, read_pages(app.engine, model, exported, pages))


def encode_ids(
    job: Job, model: Model, exported: str, centroids: Vectors, code: Code, bounds: Sequence[int]
) -> PartBytes:
    """The same of the vectors of ranges of picture ids, from each bound to before the next one."""
    with job.services() as app:
        return _encoded(centroids, code, read_ids(app.engine, model, exported, bounds))


def _encoded(
    centroids: Vectors, code: Code, blocks: Iterable[tuple[Ids, EmbeddingRows]]
) -> PartBytes:
    part = faiss_index.inverted_lists(np.array(centroids), code)
    for ids, vectors in blocks:
        faiss_index.add(part, ids, vectors)
    return faiss_parts.serialized(part)


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
    with (
        job.services() as app,
        closing(remote_pictures(app.settings, download_cache(app.settings), share)) as remote,
    ):
        catalog = CatalogService(app.engine, app.catalog.history, during=run)
        local = LocalPictures(folder, max_bytes=app.limits.max_bytes) if folder else None
        encoders = MaintainedEncoders(catalog, app.encoders)
        preparer = Preparer(
            catalog, encoders, AnyPictures(local, remote), app.limits, threads=job.cpus
        )
        counts, rejects = RowCounts(), list[SourceReject]()
        with closing(ChunkWriter(catalog, encoders, preparer, threads=job.cpus)) as writer:
            for part in writer.write(rows, _RunElsewhere(run, history)):
                counts.add(part.counts)
                rejects += part.rejects
        return WrittenRows(counts, rejects)
