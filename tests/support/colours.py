"""A small deterministic encoder: the vector of a picture is its 4 x 4 pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from app.encoders.base import EncoderChoice
from app.encoders.preprocessing import PreparedPicture
from app.errors import NoWords
from app.types import Vectors

SIDE = 4


class ColourEncoder:
    """Encodes colours only; encoders with another `name` have another fingerprint."""

    def __init__(self, name: str = "colours") -> None:
        self.name = name
        self.revision = "1"
        self.dim = 3 * SIDE * SIDE + 1
        self.fingerprint = hashlib.sha256(name.encode()).hexdigest()
        self.reads_words = False
        self.maps_regions = False
        self.input_side: int | None = None
        self.batch_size = 16

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Vectors:
        return self.encode_prepared([self.prepare(picture) for picture in pictures])

    def prepare(self, picture: Image.Image) -> PreparedPicture:
        return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.uint8)

    def encode_prepared(self, prepared: Sequence[PreparedPicture]) -> Vectors:
        rows = np.ones((len(prepared), self.dim), dtype=np.float32)
        for row, small in zip(rows, prepared, strict=True):
            row[1:] = small.astype(np.float32).ravel() / 127.5 - 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_words(self, words: Sequence[str]) -> Vectors:
        raise NoWords()


def choose_colours(model: str, **_: Any) -> EncoderChoice:
    """Replaces `choose_encoder`; 'auto' is the encoder 'colours'."""
    name = "colours" if model == "auto" else model
    return EncoderChoice(ColourEncoder(name), f"The encoder {name} was taken.")


@lru_cache(maxsize=20_000)
def photo(seed: int, *, side: int = 32, kind: str = "PNG") -> bytes:
    """A small picture file of random colour blocks; the same seed gives the same bytes."""
    blocks = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(blocks).resize((side, side), Image.Resampling.NEAREST).save(file, kind)
    return file.getvalue()
