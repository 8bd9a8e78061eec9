"""Backfill: embeds the existing pictures of a catalogue under another model.

Works in batches of missing embeddings, so it can be interrupted and run again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from sqlalchemy import Connection, Engine

from app.catalog.fallback_index import maintain_after_load
from app.db import copy, locks
from app.db.pipeline import open_pipeline
from app.db.queries import embeddings, models
from app.encoders.base import Encoder
from app.encoders.projected_encoder import ProjectedEncoder
from app.errors import BadImage, ModelNotMaintained
from app.types import Model, ProgressCallback, Vector

BATCH = 32
ALL_PICTURES = range(1, 1 << 63)
MAX_REASONS = 20
"""Maximum number of failures that a report gives reasons for."""

MissingPicture = tuple[int, bytes, list[str]]
"""Id, sha256, and the URIs of its originals."""

FindOriginal = Callable[[bytes, Sequence[str]], Image.Image]
"""Finds the picture with this sha256 that came from one of these URIs; raises BadImage."""


@dataclass(frozen=True, slots=True)
class EmbeddedPart:
    """The outcome of a part of a backfill.

    `embedded` pictures got their embedding by it, `settled` have one now, `failed` have none;
    `reasons` are those of some failures.
    """

    embedded: int
    settled: int
    failed: int
    reasons: tuple[str, ...]


@dataclass(slots=True)
class BackfillReport:
    """Counts of pictures that were embedded and that failed, with some of the reasons.

    `left` is the number of pictures that still have no embedding.
    """

    embedded: int = 0
    failed: int = 0
    left: int = 0
    seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)


BackfillProgress = Callable[[BackfillReport], None]
"""Called after every part with the report so far."""


def embed(
    engine: Engine,
    model: Model,
    encoder: Encoder,
    find: FindOriginal,
    progress: BackfillProgress | None = None,
    notify: ProgressCallback = lambda message: None,
) -> BackfillReport:
    """Embed every picture that has no embedding under the model.

    Searches and writers continue; each batch is one short transaction. Raises DatabaseUnavailable
    when the connection is lost, and ModelNotMaintained when the model is dropped in the meantime;
    what was embedded until then is kept.
    """
    parts = embed_range(engine, model, encoder, find, ALL_PICTURES)
    return complete(engine, model, parts, progress, notify)


def complete(
    engine: Engine,
    model: Model,
    parts: Generator[EmbeddedPart],
    progress: BackfillProgress | None = None,
    notify: ProgressCallback = lambda message: None,
) -> BackfillReport:
    """Sum up the parts of a backfill while they are done, and maintain pgvector's index after."""
    report, began = BackfillReport(left=_left(engine, model)), time.monotonic()
    with closing(parts):
        for part in parts:
            report.embedded += part.embedded
            report.failed += part.failed
            report.reasons += part.reasons[: MAX_REASONS - len(report.reasons)]
            report.left = max(report.left - part.settled, 0)
            report.seconds = round(time.monotonic() - began, 3)
            if progress:
                progress(report)
    maintain_after_load(engine, notify)
    report.seconds = round(time.monotonic() - began, 3)
    report.left = _left(engine, model)
    return report


def embed_range(
    engine: Engine,
    model: Model,
    encoder: Encoder,
    find: FindOriginal,
    ids: range,
    readers: int = 1,
) -> Generator[EmbeddedPart]:
    """Embed the pictures of a range of ids that have no embedding; yields the outcome of each
    batch, which is a transaction. `readers` threads find and decode originals."""

    def original(missing: MissingPicture) -> Image.Image | str:
        _, sha256, uris = missing
        try:
            return find(sha256, uris)
        except BadImage as exc:
            return f"picture {sha256.hex()[:12]}: {exc}"

    with ThreadPoolExecutor(readers, "original") as threads:
        for batch in _missing(engine, model, ids):
            vectors = _derive(engine, encoder, [picture_id for picture_id, _, _ in batch])
            wanted = [each for each in batch if each[0] not in vectors]
            wanted_ids = [id_ for id_, _, _ in wanted]
            found = dict(zip(wanted_ids, threads.map(original, wanted), strict=True))
            pictures = {id_: each for id_, each in found.items() if not isinstance(each, str)}
            reasons = [each for each in found.values() if isinstance(each, str)]
            stored = store(engine, model, vectors | _encode(encoder, pictures))
            yield EmbeddedPart(stored, stored, len(reasons), tuple(reasons[:MAX_REASONS]))


def _derive(engine: Engine, encoder: Encoder, ids: Sequence[int]) -> dict[int, Vector]:
    """The vectors of a fitted model that follow from those of its base, without any picture."""
    if not isinstance(encoder, ProjectedEncoder):
        return {}
    with engine.connect() as connection:
        base = models.by_fingerprint(connection, encoder.base.fingerprint)
        known = embeddings.vectors(connection, base, ids) if base is not None else {}
    if not known:
        return {}
    return dict(zip(known, encoder.project(np.array(list(known.values()))), strict=True))


def _left(engine: Engine, model: Model) -> int:
    with engine.connect() as connection:
        return models.count_missing(connection, model.id)


def missing_ranges(engine: Engine, model: Model, size: int) -> Iterator[tuple[range, int]]:
    """Ranges of ids that each have up to `size` pictures without an embedding, with their number.

    Each is read when it is asked for.
    """
    after = 0
    while True:
        with engine.connect() as connection:
            last, count = models.next_without_embedding(connection, model.id, after, size)
        if not count:
            return
        yield range(after + 1, last + 1), count
        after = last


def _missing(engine: Engine, model: Model, ids: range) -> Iterator[list[MissingPicture]]:
    while True:
        with engine.connect() as connection:
            batch = models.pictures_without_embedding(connection, model.id, ids, BATCH)
        if not batch:
            return
        yield batch
        ids = range(batch[-1][0] + 1, ids.stop)


def store(engine: Engine, model: Model, vectors: Mapping[int, Vector]) -> int:
    """Insert embeddings by picture id, for pictures that exist and have none; returns how many."""
    if not vectors:
        return 0
    with locks.transaction(engine) as connection:
        return _store(connection, model, vectors)


def _store(connection: Connection, model: Model, vectors: Mapping[int, Vector]) -> int:
    with open_pipeline(connection) as pipeline:
        locks.begin_write(pipeline)
        maintained = models.maintained_in(pipeline)
        missing = embeddings.missing_in(pipeline, model, list(vectors))
        rows = copy.rows_by_id(model, vectors)  # while the server works
    if model.id not in [each.id for each in maintained()]:
        raise ModelNotMaintained(f"{model.name} is not kept up to date any more; it is dropped.")
    without = missing()
    if len(without):
        copy.insert_rows(connection, copy.select_ids(rows, without))
    return len(without)


def _encode(encoder: Encoder, pictures: dict[int, Image.Image]) -> dict[int, Vector]:
    if not pictures:
        return {}
    return dict(zip(pictures, encoder.encode_pictures(list(pictures.values())), strict=True))
