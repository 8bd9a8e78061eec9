"""The windows of a photo that are searched for objects, and non-maximum suppression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from app.types import Region, Vector, Vectors

SHAPES = (
    (0.4, 0.4), (0.55, 0.55), (0.75, 0.75),
    (0.35, 0.6), (0.5, 0.8), (0.6, 0.35), (0.8, 0.5), (0.65, 0.95), (0.95, 0.65),
)  # fmt: skip
"""Sizes (width, height) of windows, as shares of the photo's shorter side."""

STEP = 0.25
"""Distance of neighbouring windows, at most, as a share of their own side."""

MAX_RATIO = 2.0
"""Largest ratio of a photo's sides for which the windows keep their shapes."""

MAX_COMMON = 0.1
"""Share of the smaller of two windows that both may have in common; above it the weaker one is
suppressed. Intersection over union would keep a small window inside a large one."""

TILES = tuple(
    (column / 6, row / 6, (column + 1) / 6, (row + 1) / 6)
    for row in range(6)
    for column in range(6)
)
"""36 equal parts of a photo."""

GRID = np.array([0.0, *np.arange(0.02, 1.0, 0.05).round(2), 1.0])
"""Where the edges of objects' frames are, as shares of the side: apart from the borders in whole
percent that are seldom chosen by hand."""

EDGE = 1e-3
"""A window touches an edge of the photo if it is nearer, as a share of the side."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of a photo, as fractions of its sides, with their unit vectors, float32 (n, dim), the
    `border_texture` of the photo, and how `alike` its TILES are (None: unknown)."""

    regions: Sequence[Region]
    vectors: Vectors
    texture: float
    alike: float | None = None

    def border_likeness(self, whole: Vector) -> float:
        """The mean cosine similarity of the smaller half of the windows, those that touch an edge
        of the photo, to the vector of the whole photo, (dim,): what surrounds a product is unlike
        the photo, each part of a heap is like it."""
        boxes = np.asarray(self.regions, np.float64).reshape(-1, 4)
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        touching = np.minimum(boxes[:, :2], 1 - boxes[:, 2:]).min(axis=1) < EDGE
        chosen = touching & (areas < np.quantile(areas, 0.5))
        return float((self.vectors[chosen] @ whole).mean()) if chosen.any() else 0.0


def likeness(tiles: Vectors) -> float:
    """How alike parts of a photo are: the mean cosine similarity of all pairs of their unit
    vectors, (n, dim), each with itself too."""
    return float(np.square(tiles.mean(axis=0)).sum())


def window_grid(size: tuple[int, int]) -> list[Region]:
    """The windows of a photo with this size (width, height), without the whole photo.

    About 290 for a photo with a ratio of 4 to 3. Windows of one shape cover the photo evenly. A
    ratio above MAX_RATIO is treated as MAX_RATIO, and windows are longer in proportion.
    """
    short = min(size)
    width, height = (min(side / short, MAX_RATIO) for side in size)
    regions: dict[Region, None] = {}
    for wide, high in SHAPES:
        for left in _starts(wide / width).tolist():
            for top in _starts(high / height).tolist():
                right, bottom = left + wide / width, top + high / height
                regions[round(left, 4), round(top, 4), round(right, 4), round(bottom, 4)] = None
    return list(regions)


def nominating(regions: Sequence[Region]) -> NDArray[np.int64]:
    """The indices of a fifth of the windows of `window_grid`, spread evenly: those that pictures
    are nominated for. A step to the left, right, up or down leads from any other window inside a
    photo to one of them."""
    left = np.array([region[0] for region in regions])
    begins = np.flatnonzero(np.diff(left, prepend=-1.0))
    column = np.repeat(np.arange(len(begins)), np.diff(begins, append=len(left)))
    row = np.arange(len(left)) - begins[column]
    return np.flatnonzero((column + 2 * row) % 5 == 0)


def _starts(share: float) -> NDArray[np.float64]:
    """Where windows with this share of a side begin, as shares of the side."""
    count = 1 + int(np.ceil(round((1 - share) / (STEP * share), 6)))
    return np.linspace(0, 1 - share, count)


def same_box(box: Region, region: Region) -> bool:
    """Whether a region is a box, exactly or with the box's edges in whole percent."""
    edges = np.asarray(region)
    return any(np.allclose(edges, np.round(box, digits), atol=1e-6) for digits in (4, 2))


def on_grid(box: ArrayLike) -> Region:
    """The smallest box around one, (4,), whose edges are in GRID."""
    low, high = np.asarray(box, np.float64).reshape(2, 2)
    left, top = GRID[np.searchsorted(GRID, low + 1e-6, "right") - 1].tolist()
    right, bottom = GRID[np.searchsorted(GRID, high - 1e-6)].tolist()
    return left, top, right, bottom


def is_on_grid(region: Region) -> bool:
    """Whether a region may be the frame of an object."""
    return all(np.isclose(GRID, edge, atol=1e-4).any() for edge in region)


def overlaps(region: Region, others: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of a region with each of `others` (n, 4), shape (n,)."""
    common, own, areas = _areas(region, others)
    return common / (own + areas - common)


def common_share(region: Region, others: ArrayLike) -> NDArray[np.float64]:
    """The intersection of a region with each of `others` (n, 4), as a share of the smaller of the
    two, shape (n,)."""
    common, own, areas = _areas(region, others)
    return common / np.minimum(own, areas)


def _areas(
    region: Region, others: ArrayLike
) -> tuple[NDArray[np.float64], float, NDArray[np.float64]]:
    """Areas of the intersections of a region with others, of the region, and of the others."""
    boxes = np.asarray(others, np.float64).reshape(-1, 4)
    left, top = np.maximum(region[0], boxes[:, 0]), np.maximum(region[1], boxes[:, 1])
    right, bottom = np.minimum(region[2], boxes[:, 2]), np.minimum(region[3], boxes[:, 3])
    common = np.clip(right - left, 0, None) * np.clip(bottom - top, 0, None)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return common, (region[2] - region[0]) * (region[3] - region[1]), areas


def suppress(regions: Sequence[Region], scores: Sequence[float], count: int) -> list[int]:
    """Non-maximum suppression: the indices of the `count` best regions, best first, none of which
    has more than MAX_COMMON in common with a better one. Equal scores are taken in order."""
    boxes = np.asarray(regions, np.float64).reshape(-1, 4)
    left = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    chosen: list[int] = []
    while len(left) and len(chosen) < count:
        best, left = int(left[0]), left[1:]
        chosen.append(best)
        left = left[common_share(regions[best], boxes[left]) <= MAX_COMMON]
    return chosen
