"""Embedding: gives the pictures that are there already their embeddings under another model.

It can be stopped at any time and begun again: it asks for what is missing, a batch at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from PIL import Image
from sqlalchemy import Engine

from app.encoders import Encoder
from app.errors import BadImage
from app.store import models, pictures, writer
from app.values import Model

BATCH = 32
SHOWN = 20
"""Pictures that could not be embedded, of which a report says why."""

Find = Callable[[bytes, Sequence[str]], Image.Image]
"""The picture with this sha256, which came from one of these places; raises BadImage."""


@dataclass(slots=True)
class Report:
    """What was done: pictures embedded, and not embedded with some of the reasons."""

    embedded: int = 0
    failed: int = 0
    left: int = 0
    seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)


def embed(
    engine: Engine,
    model: Model,
    encoder: Encoder,
    find: Find,
    progress: Callable[[Report], None] | None = None,
) -> Report:
    """Embed every picture that has no embedding under the model yet.

    Searches and writers go on; each batch is one short transaction. Raises DatabaseUnavailable
    when the database goes away; what was embedded until then stays.
    """
    report, began = Report(), time.monotonic()
    for batch in _missing(engine, model):
        found: dict[int, Image.Image] = {}
        for picture_id, sha256, places in batch:
            try:
                found[picture_id] = find(sha256, places)
            except BadImage as exc:
                report.failed += 1
                if len(report.reasons) < SHOWN:
                    report.reasons.append(f"picture {sha256.hex()[:12]}: {exc}")
        report.embedded += _store(engine, model, encoder, found)
        report.seconds = round(time.monotonic() - began, 3)
        if progress:
            progress(report)
    with engine.connect() as connection:
        report.left = models.missing(connection, model.id)
    return report


def _missing(engine: Engine, model: Model) -> Iterator[list[tuple[int, bytes, list[str]]]]:
    after = 0
    while True:
        with engine.connect() as connection:
            batch = models.without(connection, model.id, after, BATCH)
        if not batch:
            return
        yield batch
        after = batch[-1][0]


def _store(engine: Engine, model: Model, encoder: Encoder, found: dict[int, Image.Image]) -> int:
    """Write the embeddings of pictures that are still there; returns how many."""
    if not found:
        return 0
    vectors = dict(zip(found, encoder.encode_pictures(list(found.values())), strict=True))
    committed = engine.execution_options(isolation_level="READ COMMITTED")
    with committed.begin() as connection:
        writer.begin(connection)
        there = pictures.still(connection, list(vectors))
        pictures.embed(connection, model, {id_: vectors[id_] for id_ in there})
    return len(there)
