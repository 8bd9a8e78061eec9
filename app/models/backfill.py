"""Embedding: gives the pictures that are there already their embeddings under another model.

It can be stopped at any time and begun again: it asks for what is missing, a batch at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image
from sqlalchemy import Connection, Engine

from app.catalog.bulk_load import ProgressCallback, bulk
from app.db import copy, locks
from app.db.pipeline import open_pipeline
from app.db.queries import embeddings, models
from app.encoders.base import Encoder
from app.errors import BadImage, ModelNotKept
from app.types import Model, Vector

BATCH = 32
SHOWN = 20
"""Pictures that could not be embedded, of which a report says why."""

FindOriginal = Callable[[bytes, Sequence[str]], Image.Image]
"""The picture with this sha256, which came from one of these places; raises BadImage."""


@dataclass(slots=True)
class BackfillReport:
    """What was done: pictures embedded, and not embedded with some of the reasons; how many have
    no embedding yet is `left`."""

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
    tell: ProgressCallback = lambda said: None,
) -> BackfillReport:
    """Embed every picture that has no embedding under the model yet.

    Searches and writers go on; each batch is one short transaction. Raises DatabaseUnavailable
    when the database goes away, and ModelNotKept when the model is dropped meanwhile; what was
    embedded until then stays.
    """
    report, began = BackfillReport(left=_left(engine, model)), time.monotonic()
    with bulk(engine, [model], report.left, tell):
        _embed(engine, model, encoder, find, report, progress)
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
        found: dict[int, Image.Image] = {}
        for picture_id, sha256, places in batch:
            try:
                found[picture_id] = find(sha256, places)
            except BadImage as exc:
                report.failed += 1
                if len(report.reasons) < SHOWN:
                    report.reasons.append(f"picture {sha256.hex()[:12]}: {exc}")
        stored = store(engine, model, _encoded(encoder, found))
        report.embedded += stored
        report.left = max(report.left - stored, 0)
        report.seconds = round(time.monotonic() - began, 3)
        if progress:
            progress(report)


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
    """Write embeddings of pictures (id) that are still there and have none; returns how many."""
    if not vectors:
        return 0
    with locks.transaction(engine) as connection:
        return _store(connection, model, vectors)


def _store(connection: Connection, model: Model, vectors: Mapping[int, Vector]) -> int:
    with open_pipeline(connection) as trip:
        locks.begin_write(trip)
        kept = models.maintained_in(trip)
        lacking = embeddings.missing_in(trip, model, list(vectors))
        rows = copy.rows_by_id(model, vectors)  # while the server looks
    if model.id not in [each.id for each in kept()]:
        raise ModelNotKept(f"{model.name} is not kept up to date any more; it is dropped.")
    missing = lacking()
    if len(missing):
        copy.insert_rows(connection, copy.select_ids(rows, missing))
    return len(missing)


def _encoded(encoder: Encoder, found: dict[int, Image.Image]) -> dict[int, Vector]:
    if not found:
        return {}
    return dict(zip(found, encoder.encode_pictures(list(found.values())), strict=True))
