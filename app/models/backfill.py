"""Backfill: embeds the existing pictures of a catalogue under another model.

Works in batches of missing embeddings, so it can be interrupted and run again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
MAX_REASONS = 20
"""Maximum number of failures that a report gives reasons for."""

FindOriginal = Callable[[bytes, Sequence[str]], Image.Image]
"""Finds the picture with this sha256 that came from one of these URIs; raises BadImage."""


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


def embed(
    engine: Engine,
    model: Model,
    encoder: Encoder,
    find: FindOriginal,
    progress: Callable[[BackfillReport], None] | None = None,
    notify: ProgressCallback = lambda message: None,
) -> BackfillReport:
    """Embed every picture that has no embedding under the model.

    Searches and writers continue; each batch is one short transaction. Raises DatabaseUnavailable
    when the connection is lost, and ModelNotMaintained when the model is dropped in the meantime;
    what was embedded until then is kept.
    """
    report, began = BackfillReport(left=_left(engine, model)), time.monotonic()
    _embed(engine, model, encoder, find, report, progress)
    maintain_after_load(engine, notify)
    report.seconds = round(time.monotonic() - began, 3)
    report.left = _left(engine, model)
    return report


def _embed(
    engine: Engine,
    model: Model,
    encoder: Encoder,
    find: FindOriginal,
    report: BackfillReport,
    progress: Callable[[BackfillReport], None] | None,
) -> None:
    began = time.monotonic()
    for batch in _missing(engine, model):
        vectors = _derive(engine, encoder, [picture_id for picture_id, _, _ in batch])
        pictures: dict[int, Image.Image] = {}
        for picture_id, sha256, uris in batch:
            if picture_id in vectors:
                continue
            try:
                pictures[picture_id] = find(sha256, uris)
            except BadImage as exc:
                report.failed += 1
                if len(report.reasons) < MAX_REASONS:
                    report.reasons.append(f"picture {sha256.hex()[:12]}: {exc}")
        stored = store(engine, model, vectors | _encode(encoder, pictures))
        report.embedded += stored
        report.left = max(report.left - stored, 0)
        report.seconds = round(time.monotonic() - began, 3)
        if progress:
            progress(report)


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


def _missing(engine: Engine, model: Model) -> Iterator[list[tuple[int, bytes, list[str]]]]:
    after = 0
    while True:
        with engine.connect() as connection:
            batch = models.pictures_without_embedding(connection, model.id, after, BATCH)
        if not batch:
            return
        yield batch
        after = batch[-1][0]


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
