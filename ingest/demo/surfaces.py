"""Endless surfaces, wooden boards and tiles, as functions of u and v."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from ingest.demo.paint import Colour, Picture, Plane, noise, plane, sample
from ingest.demo.shading import soften

Surface = Callable[[Plane, Plane], Picture]
"""A function from u and v, in units of about one picture width, to colours."""


def boards(wood: Colour) -> Surface:
    """Planks that run from left to right."""

    def surface(u: Plane, v: Plane) -> Picture:
        tile = _planks()
        tone = sample(tile, (u + 8) * 420, (v + 8) * 420)
        return plane(wood) * tone[..., None]

    return surface


def tiles(colour: Colour) -> Surface:
    """Square tiles with darker joints."""

    def surface(u: Plane, v: Plane) -> Picture:
        x, y = (u * 4) % 1, (v * 4) % 1
        joint = np.maximum(np.abs(x - 0.5), np.abs(y - 0.5)) > 0.485
        mottle = 0.95 + 0.1 * sample(noise(20), (u + 8) * 160, (v + 8) * 160)
        return plane(colour) * np.where(joint, 0.82, mottle)[..., None].astype(np.float32)

    return surface


@lru_cache(maxsize=1)
def _planks() -> Plane:
    """A tile of six planks, 1 on average: long grain, slightly different tones, dark joints."""
    size, count = 516, 6
    rows = np.arange(size)[:, None] + np.zeros((1, size))
    columns = np.arange(size)[None, :] + np.zeros((size, 1))
    plank = (rows * count / size).astype(np.int32)
    form = np.random.default_rng(4)
    shift, tone = form.integers(0, 512, count)[plank], form.uniform(0.93, 1.06, count)[plank]
    fine = sample(noise(3), (columns + shift) / 14, rows * 1.3 + shift)
    wide = sample(noise(14), (columns + shift) / 7 + 3 * np.sin(rows / 40), rows + shift)
    grain = tone * (0.80 + 0.22 * fine + 0.18 * wide)
    within = rows * count / size % 1
    joint = np.exp(-((np.minimum(within, 1 - within) / 0.018) ** 2))
    return soften((grain * (1 - 0.45 * joint)).astype(np.float32) * 0.6, 1) / 0.6
