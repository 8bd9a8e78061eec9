"""Pictures as squares of one size, and the encoders that read them; imports no network library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.encoders import word_space
from app.encoders.base import EMBEDDED, INT8
from app.encoders.embedded_versions import MAP_PIXELS, SIDES
from app.encoders.feature_map import MAP_SIDE, STRIDE, FeatureMap, map_input_size, window_parts
from app.encoders.preprocessing import PreparedPicture
from app.errors import NoWords
from app.types import Region, Vectors

DIM = 512
"""Length of a vector."""

# Measured on two cores: larger batches do not fit the cache and are a third slower.
BATCH = 8


@dataclass(frozen=True, slots=True)
class EncoderFunctions:
    """What runs the networks of an encoder, from any number of threads.

    `encode` maps squares, uint8 (n, side, side, 3), to float32 unit rows (n, 512); `map_cells`
    pictures, uint8 (n, height, width, 3), to the last feature map, float32 (n, rows, columns,
    channels); `pool` the features of the halves of windows, float32 (n, 2, channels), to unit rows.
    """

    encode: Callable[[NDArray[np.uint8]], Vectors]
    map_cells: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    pool: Callable[[NDArray[np.float32]], Vectors]


class SquarePictureEncoder:
    """Encodes pictures whole and without their ratio. Immutable, so without locks."""

    maps_regions = True
    input_side: int | None
    dim = DIM
    batch_size = BATCH

    def __init__(
        self,
        functions: EncoderFunctions,
        version: str,
        fingerprint: str,
        runtime: str,
        *,
        int8: bool = False,
    ) -> None:
        """`version` is that of the embedded encoder."""
        self._functions = functions
        self._version = version
        self.reads_words = word_space.reads_words(version)
        self._map_pixels = MAP_PIXELS[version]
        self.side = SIDES[version]
        self.input_side = 2 * self.side
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
            self._functions.encode(np.stack(prepared[start : start + BATCH]))
            for start in range(0, len(prepared), BATCH)
        ]
        return np.concatenate(rows) if rows else np.empty((0, self.dim), np.float32)

    def encode_map(self, picture: Image.Image, side: int = MAP_SIDE) -> FeatureMap:
        """The last feature maps of an RGB picture: float32 (rows, columns, channels).

        The shorter side is resized to `side` pixels; see `map_input_size`.
        """
        size = map_input_size(picture.size, STRIDE, self._map_pixels, side)
        cells = self._functions.map_cells(np.stack([resized(picture, size)]))
        return np.ascontiguousarray(cells[0])

    def pool_windows(self, feature_map: FeatureMap, windows: Sequence[Region]) -> Vectors:
        """Unit vectors of windows of a feature map: float32 (n, 512).

        As of a picture that shows the window alone, except that cells also see its surroundings,
        and that all cells of a window weigh the same.
        """
        return self._functions.pool(window_parts(feature_map, windows, parts=2))

    def encode_words(self, words: Sequence[str]) -> Vectors:
        """Texts to float32 rows (n, 512), in order: at unit length, or zeros for a text that the
        text side knows too little of. Raises NoWords if this version has no text side."""
        if not self.reads_words:
            raise NoWords
        return word_space.word_space(self._version).encode(words)


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
