"""Shading of a part from its outline: brightness (1: the unchanged paint) and shine."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ingest.demo.paint import Plane

# Unit vectors towards the light (left, above, in front) and halfway to the camera.
LIGHT = np.array([-0.46, -0.60, 0.655])
_BETWEEN = LIGHT + np.array([0, 0, 1])
HALFWAY = _BETWEEN / np.linalg.norm(_BETWEEN)


def flat(shape: tuple[int, ...], light: float) -> tuple[Plane, Plane]:
    """A level surface: slightly brighter towards the light."""
    down = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None]
    across = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :] * light
    bright: Plane = 1.05 - 0.10 * down - 0.05 * across
    return bright, np.zeros_like(bright)


def rounded(covered: Plane, reach: float, light: float) -> tuple[Plane, Plane]:
    """A cushion: the blurred outline is its height, whose slope gives the normal."""
    height = soften(covered, max(reach, 1.0))
    if min(height.shape) < 2:
        return flat(height.shape, light)
    down, across = np.gradient(height * max(reach, 1.0) * 1.5)
    length = np.sqrt(across**2 + down**2 + 1)
    facing = (-across * LIGHT[0] * light - down * LIGHT[1] + LIGHT[2]) / length
    mirror = (-across * HALFWAY[0] * light - down * HALFWAY[1] + HALFWAY[2]) / length
    bright = np.clip(0.42 + 0.60 * facing / LIGHT[2], 0.22, 1.3)
    return bright.astype(np.float32), (np.clip(mirror, 0, 1) ** 36).astype(np.float32)


def turned(covered: Plane, light: float) -> tuple[Plane, Plane, Plane]:
    """A body of revolution: every row is a half circle. Also returns -1 to 1 across each row."""
    inside = covered > 0.5
    wide = covered.shape[1]
    left = np.argmax(inside, axis=1)
    right = wide - 1 - np.argmax(inside[:, ::-1], axis=1)
    middle, half = (left + right) / 2, np.maximum((right - left) / 2, 1)
    steps = (np.arange(wide)[None, :] - middle[:, None]) / half[:, None]
    across = np.clip(steps, -0.999, 0.999).astype(np.float32)
    side = across * light
    bright = 0.50 + 0.62 * np.clip(0.80 * np.sqrt(1 - side**2) - 0.58 * side, 0, 1)
    bright += 0.10 * np.clip(side - 0.75, 0, 1) * 4  # light reflected by the surroundings
    shine = np.exp(-(((side + 0.52) / 0.09) ** 2)) + 0.25 * np.exp(-(((side - 0.72) / 0.06) ** 2))
    return bright.astype(np.float32), shine.astype(np.float32), across


def soften(plane: Plane, radius: float) -> Plane:
    """An approximate Gaussian blur, in float to avoid banding; wide ones use a smaller picture."""
    if radius < 0.5:
        return plane
    step = max(1, int(radius / 2))
    small = np.asarray(Image.fromarray(plane).reduce(step)) if step > 1 else plane
    for _ in range(2):
        small = _box(_box(small, radius / step, 0), radius / step, 1)
    if step == 1:
        return small
    size = (plane.shape[1], plane.shape[0])
    # The reduced picture covers whole steps; the box aligns it with the original.
    cover = (0.0, 0.0, size[0] / step, size[1] / step)
    grown = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC, box=cover)
    return np.asarray(np.clip(np.asarray(grown), 0, 1), dtype=np.float32)


def _box(plane: Plane, radius: float, axis: int) -> Plane:
    reach = max(1, round(radius))
    padding = [(0, 0), (0, 0)]
    padding[axis] = (reach + 1, reach)
    total = np.cumsum(np.pad(plane, padding, mode="edge"), axis=axis, dtype=np.float32)
    width = 2 * reach + 1
    ahead, behind = (
        (total[width:], total[:-width])
        if axis == 0
        else (
            total[:, width:],
            total[:, :-width],
        )
    )
    mean: Plane = (ahead - behind) / np.float32(width)
    return mean
