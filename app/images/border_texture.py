"""How much the border of a picture varies: little around a product on a plain ground, much where
the picture shows other things around it."""

from __future__ import annotations

import numpy as np
from PIL import Image

SIDE = 32
"""Pixels of the side to which a picture is reduced: fabric and noise average out, things do not."""

RING = 2
"""Width of the border in such pixels."""


def border_texture(picture: Image.Image) -> float:
    """The mean absolute difference of neighbouring pixels along the border of an RGB picture.

    In levels, 0 to 255: pictures on white have 0 to 3, shelves of a shop about 20. Neighbours are
    those in the direction of the border.
    """
    small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    across = np.abs(np.diff(small, axis=1)).mean(axis=2)
    down = np.abs(np.diff(small, axis=0)).mean(axis=2)
    along = (across[:RING], across[-RING:], down[:, :RING].T, down[:, -RING:].T)
    return float(np.mean(along))
