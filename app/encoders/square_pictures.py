"""Pictures as squares of one size, and the encoders that read them; imports no network library."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.encoders.base import EMBEDDED, INT8
from app.encoders.preprocessing import PreparedPicture
from app.errors import NoWords
from app.types import Vectors

DIM = 512
"""Length of a vector."""

# Measured on two cores: larger batches do not fit the cache and are a third slower.
_BATCH = 8


class SquarePictureEncoder:
    """Encodes pictures whole and without their ratio, by a function of squares. Immutable, so
    without locks."""

    reads_words = False
    maps_regions = True
    input_side: int | None
    dim = DIM

    def __init__(
        self,
        run: Callable[[NDArray[np.uint8]], Vectors],
        side: int,
        version: str,
        fingerprint: str,
        runtime: str,
        *,
        int8: bool = False,
    ) -> None:
        """`run` maps squares, uint8 (n, side, side, 3), to float32 unit rows (n, 512). `version` is
        that of the embedded encoder."""
        self._run = run
        self.side, self.input_side = side, 2 * side
        self.name = EMBEDDED + INT8 if int8 else EMBEDDED
        self.runtime = runtime
        self.fingerprint = fingerprint
        self.revision = f"{version}-{fingerprint[:12]}"

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Vectors:
        """RGB pictures of any size to float32 unit rows (n, 512), in order."""
        return self.encode_prepared([self.prepare(picture) for picture in pictures])

    def prepare(self, picture: Image.Image) -> PreparedPicture:
        """An RGB picture as the network's input: uint8 (side, side, 3)."""
        return square(picture, self.side)

    def encode_prepared(self, prepared: Sequence[PreparedPicture]) -> Vectors:
        """Prepared pictures to float32 unit rows (n, 512), in order."""
        rows = [
            self._run(np.stack(prepared[start : start + _BATCH]))
            for start in range(0, len(prepared), _BATCH)
        ]
        return np.concatenate(rows) if rows else np.empty((0, self.dim), np.float32)

    def encode_words(self, words: Sequence[str]) -> Vectors:
        """Raises NoWords: this model encodes pictures only."""
        raise NoWords


def square(picture: Image.Image, side: int) -> PreparedPicture:
    """The whole picture resized to uint8 (side, side, 3), without keeping its aspect ratio.

    A crop would lose the edges, and padding would waste pixels.
    """
    return resized(picture, (side, side))


def resized(picture: Image.Image, size: tuple[int, int]) -> PreparedPicture:
    """A picture resized to `size` (width, height), as uint8 (height, width, 3)."""
    # A gap of 3 looks the same as a full bicubic resize and is far faster on large pictures.
    shrunk = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(shrunk, dtype=np.uint8)
