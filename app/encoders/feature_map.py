"""Feature maps of pictures: their input size, and the mean features of windows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.types import Region

FeatureMap = NDArray[np.float32]
"""The features of a picture's cells: (rows, columns, channels), C-contiguous."""

MAP_SIDE = 384
"""Pixels of the shorter side of a picture whose feature map is computed."""

STRIDE = 32
"""Side of a picture divided by the side of the last feature map of the embedded encoder."""

MAX_ASPECT = 2.0
"""A longer picture is squeezed to this ratio of its sides, which bounds the cost of its map."""


def map_input_size(
    size: tuple[int, int], stride: int, pixels: int, side: int = MAP_SIDE
) -> tuple[int, int]:
    """The size (width, height) that a picture of `size` is resized to: the shorter side has `side`
    pixels, the ratio is kept up to MAX_ASPECT, and both are multiples of `stride`.

    It has at most `pixels`: where that would be more, the shorter side has fewer and the ratio is
    kept nearly.
    """
    width, height = size
    ratio = min(max(size) / min(size), MAX_ASPECT)
    short, long = (max(1, round(edge * side / stride)) for edge in (1, ratio))
    cells = pixels // stride**2
    if short * long > cells:
        short = max(1, min(short, math.isqrt(int(cells / ratio))))
        long = max(1, min(round(short * ratio), cells // short))
    columns, rows = (long, short) if width > height else (short, long)
    return columns * stride, rows * stride


def window_parts(
    feature_map: FeatureMap, windows: Sequence[Region], parts: int
) -> NDArray[np.float32]:
    """Mean features of the horizontal strips of windows: float32 (n, parts, channels).

    Each window is cut into `parts` strips of equal height, from top to bottom. Cells count by the
    share of them that a strip covers. Windows are fractions (0 to 1) of the picture's sides, with
    a positive width and height. One matrix product, which for some hundred cells takes less time
    than an integral image.
    """
    rows, columns, channels = feature_map.shape
    boxes = np.asarray(windows, np.float64).reshape(-1, 4)
    tops, bottoms = boxes[:, 1:2], boxes[:, 3:]
    edges = tops + (bottoms - tops) * np.linspace(0, 1, parts + 1)
    down = _coverage(edges[:, :-1], edges[:, 1:], rows)
    across = _coverage(boxes[:, :1], boxes[:, 2:3], columns)
    shares = (down[:, :, :, None] * across[:, :, None, :]).reshape(-1, rows * columns)
    means: NDArray[np.float32] = shares.astype(np.float32) @ feature_map.reshape(-1, channels)
    return means.reshape(len(boxes), parts, channels)


def _coverage(
    starts: NDArray[np.float64], ends: NDArray[np.float64], cells: int
) -> NDArray[np.float64]:
    """How much of each interval (fractions of a side) lies in each of its cells: (*shape, cells),
    with the sum 1."""
    borders = np.arange(cells)
    until = np.minimum(ends[..., None] * cells, borders + 1)
    since = np.maximum(starts[..., None] * cells, borders)
    covered = np.clip(until - since, 0, None)
    shares: NDArray[np.float64] = covered / covered.sum(axis=-1, keepdims=True)
    return shares
