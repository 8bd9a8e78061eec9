"""The encoder that is installed: whether it is the one the catalogue was filled with."""

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
"""Pictures that are encoded again."""

ALIKE = 0.999
"""Least cosine of a vector and the same one made again; float16 accounts for a tenth of that."""


def find(
    engine: Engine, load: Callable[[], Encoder], where: Originals, limits: ImageLimits
) -> Iterator[Finding]:
    """An encoder that is another or cannot be loaded, and vectors that it would not make."""
    with snapshot(engine) as connection:
        model = models.active(connection)
    if model is None:
        return  # that is a finding already
    try:
        encoder = load()
    except (ModelMismatch, ModelUnavailable) as exc:
        yield Finding(
            "encoder-other", "error", "encoders that are not the recorded model", 1,
            (str(exc),), "No picture can be searched or loaded until it is.",
        )  # fmt: skip
        return
    if where and (found := _sampled(engine, model, encoder, where, limits)) is not None:
        yield found


def _sampled(
    engine: Engine, model: Model, encoder: Encoder, where: Originals, limits: ImageLimits
) -> Finding | None:
    other = ExampleTally()
    with snapshot(engine) as connection:
        drawn = pictures.sample(connection, model, SAMPLE)
    for uri, sha256, vector in drawn:
        try:
            picture = decode(where.read(uri, sha256), limits, at_least=encoder.input_side)
        except BadImage:
            continue  # told by the look at the originals
        if encoder.encode_pictures([picture])[0] @ vector < ALIKE:
            other.add(uri)
    return other.finding(
        "vectors-other", "error", f"pictures of {len(drawn)} that the encoder now sees otherwise",
        "Something changed that no fingerprint tells. Load the catalogue into a new database.",
    )  # fmt: skip
