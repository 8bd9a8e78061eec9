"""Feature maps of pictures: their input size, and the mean features of windows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

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


ONE_THREAD = 250_000
"""Multiplications of a product of matrices that numpy's OpenBLAS does in one thread; its limit is
262,144. After a larger product its other threads wait actively, for 60 ms of processor time each,
which the encoder's threads lack meanwhile."""


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
    a positive width and height. Columns are joined first, once for all windows between the same
    sides, and then rows, in products of matrices that take one thread.
    """
    rows, _, channels = feature_map.shape
    boxes = np.asarray(windows, np.float64).reshape(-1, 4)
    tops, bottoms = boxes[:, 1:2], boxes[:, 3:]
    edges = tops + (bottoms - tops) * np.linspace(0, 1, parts + 1)
    down = _coverage(edges[:, :-1], edges[:, 1:], rows)
    sides, number = np.unique(boxes[:, ::2], axis=0, return_inverse=True)
    means = np.empty((len(boxes), parts, channels), np.float32)
    for side, joined in enumerate(_columns_joined(feature_map, sides)):
        own = np.flatnonzero(number == side)
        shares = down[own].reshape(-1, rows)
        product = _in_blocks(shares, joined.size) @ joined
        means[own] = product.reshape(-1, channels)[: len(shares)].reshape(-1, parts, channels)
    return means


def _columns_joined(
    feature_map: FeatureMap, sides: NDArray[np.float64]
) -> Iterator[NDArray[np.float32]]:
    """The mean features of each row between the left and the right side of windows, (rows,
    channels), for each of the sides, (n, 2)."""
    _, columns, channels = feature_map.shape
    across = _in_blocks(_coverage(sides[:, 0], sides[:, 1], columns), columns * channels)
    joined = across[:, np.newaxis] @ feature_map
    for number in range(len(sides)):
        block, place = divmod(number, across.shape[1])
        yield joined[block, :, place]


def _in_blocks(matrix: NDArray[np.float64], size: int) -> NDArray[np.float32]:
    """The rows of a matrix in blocks of equal length, the last one filled up with zeros: (blocks,
    n, columns). The product of a block and a matrix of `size` numbers takes one thread."""
    most = max(2, ONE_THREAD // size)
    blocks = max(1, -(-len(matrix) // most))
    length = max(2, -(-len(matrix) // blocks))  # a product with one row would take more threads
    filled = np.zeros((blocks * length, matrix.shape[1]), np.float32)
    filled[: len(matrix)] = matrix
    return filled.reshape(blocks, length, -1)


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
