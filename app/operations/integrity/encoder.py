"""Checks that the installed encoder is the one that the catalogue was embedded with."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sqlalchemy import Engine

from app.db.engine import snapshot
from app.db.queries import models, pictures
from app.encoders.base import Encoder
from app.errors import BadImage, ModelMismatch, ModelUnavailable
from app.images.decoding import ImageLimits, decode
from app.operations.integrity.findings import ExampleTally, Finding
from app.operations.integrity.pictures import Originals
from app.types import Model

SAMPLE = 20
"""Number of pictures that are encoded again."""

MIN_COSINE = 0.999
"""Smallest cosine between a stored vector and the same picture encoded again; float16 rounding
explains a tenth of the difference to 1."""


def find(
    engine: Engine, load: Callable[[], Encoder], originals: Originals, limits: ImageLimits
) -> Iterator[Finding]:
    """An encoder that differs or cannot be loaded, and vectors that it no longer reproduces."""
    with snapshot(engine) as connection:
        model = models.active(connection)
    if model is None:
        return  # `rows` reports it
    try:
        encoder = load()
    except (ModelMismatch, ModelUnavailable) as exc:
        yield Finding(
            "encoder-other", "error", "encoders that are not the recorded model", 1,
            (str(exc),), "Searches by picture and loads fail until it is the recorded one.",
        )  # fmt: skip
        return
    if originals and (finding := _sample(engine, model, encoder, originals, limits)) is not None:
        yield finding


def _sample(
    engine: Engine, model: Model, encoder: Encoder, originals: Originals, limits: ImageLimits
) -> Finding | None:
    different = ExampleTally()
    with snapshot(engine) as connection:
        sample = pictures.sample(connection, model, SAMPLE)
    for uri, sha256, vector in sample:
        try:
            picture = decode(originals.read(uri, sha256), limits, at_least=encoder.input_side)
        except BadImage:
            continue  # `pictures.find_originals` reports it
        if encoder.encode_pictures([picture])[0] @ vector < MIN_COSINE:
            different.add(uri)
    return different.finding(
        "vectors-other", "error",
        f"pictures of {len(sample)} that the encoder now encodes differently",
        "Something changed that the fingerprint does not cover. Load the catalogue into a new "
        "database.",
    )  # fmt: skip
