"""Feature maps of pictures: their input size, and the means of windows from one integral image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.types import Region

FeatureMap = NDArray[np.float32]
"""The features of a picture's cells: (rows, columns, channels), C-contiguous."""

MAP_SIDE = 384
"""Pixels of the shorter side of a picture whose feature map is computed."""

MAX_ASPECT = 2.0
"""A longer picture is squeezed to this ratio of its sides, which bounds the cost of its map."""


def map_input_size(size: tuple[int, int], stride: int, side: int = MAP_SIDE) -> tuple[int, int]:
    """The size (width, height) that a picture of `size` is resized to: the shorter side has `side`
    pixels, the ratio is kept up to MAX_ASPECT, and both are multiples of `stride`."""
    short = min(size)
    width, height = (min(edge / short, MAX_ASPECT) * side / stride for edge in size)
    return max(1, round(width)) * stride, max(1, round(height)) * stride


def window_parts(
    feature_map: FeatureMap, windows: Sequence[Region], parts: int
) -> NDArray[np.float32]:
    """Mean features of the horizontal strips of windows: float32 (n, parts, channels).

    Each window is cut into `parts` strips of equal height, from top to bottom. Cells count by the
    share of them that a strip covers, so a mean is exact for edges between cells too. Windows are
    fractions (0 to 1) of the picture's sides, with a positive width and height.
    """
    rows, columns, channels = feature_map.shape
    integral = np.zeros((rows + 1, columns + 1, channels), np.float64)
    np.cumsum(feature_map, axis=0, out=integral[1:, 1:])
    np.cumsum(integral[1:, 1:], axis=1, out=integral[1:, 1:])
    boxes = np.asarray(windows, np.float64).reshape(-1, 4)
    left, right = boxes[:, 0] * columns, boxes[:, 2] * columns
    edges = boxes[:, 1:2] + (boxes[:, 3:] - boxes[:, 1:2]) * np.linspace(0, 1, parts + 1)
    edges *= rows
    sums = _at(integral, edges, right[:, None]) - _at(integral, edges, left[:, None])
    areas = np.diff(edges, axis=1) * (right - left)[:, None]
    means: NDArray[np.float32] = (np.diff(sums, axis=1) / areas[:, :, None]).astype(np.float32)
    return means


def _at(
    integral: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Values of an integral image between its points, interpolated linearly: (*y.shape, channels).

    Linear interpolation is exact, because within a cell the sum grows linearly along each side.
    """
    top = np.minimum(np.floor(y).astype(np.intp), integral.shape[0] - 2)
    left = np.minimum(np.floor(x).astype(np.intp), integral.shape[1] - 2)
    y, x = (y - top)[..., None], (x - left)[..., None]
    upper = integral[top, left] * (1 - x) + integral[top, left + 1] * x
    lower = integral[top + 1, left] * (1 - x) + integral[top + 1, left + 1] * x
    return upper * (1 - y) + lower * y
