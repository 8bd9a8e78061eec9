"""The encoder of colours with a feature map: the picture's pixels, averaged over windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from app.encoders.base import EncoderChoice
from app.encoders.feature_map import FeatureMap, window_parts
from app.types import Region, Vectors
from support.colours import SIDE, ColourEncoder

CELLS = 64


class RegionColourEncoder(ColourEncoder):
    """Encodes a window of a picture as it encodes a picture of that window."""

    def __init__(self, name: str = "colours") -> None:
        super().__init__(name)
        self.maps_regions = True
        self.maps = 0
        """How many maps were computed."""

    def encode_map(self, picture: Image.Image) -> FeatureMap:
        self.maps += 1
        cells = picture.resize((CELLS, CELLS), Image.Resampling.BOX)
        return np.asarray(cells, dtype=np.float32)

    def pool_windows(self, feature_map: FeatureMap, windows: Sequence[Region]) -> Vectors:
        rows = np.ones((len(windows), self.dim), dtype=np.float32)
        for row, window in zip(rows, windows, strict=True):
            row[1:] = window_parts(feature_map, _tiles(window), 1).ravel() / 127.5 - 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def choose_region_colours(model: str, **_: Any) -> EncoderChoice:
    """Replaces `choose_encoder`."""
    name = "colours" if model == "auto" else model
    return EncoderChoice(RegionColourEncoder(name), f"The encoder {name} was taken.")


def _tiles(window: Region) -> list[Region]:
    """SIDE x SIDE parts of equal size, row by row."""
    left, top, right, bottom = window
    x, y = np.linspace(left, right, SIDE + 1), np.linspace(top, bottom, SIDE + 1)
    return [
        (x[column], y[row], x[column + 1], y[row + 1])
        for row in range(SIDE)
        for column in range(SIDE)
    ]
