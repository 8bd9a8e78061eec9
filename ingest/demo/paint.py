"""The paint of a surface: its colours, its pattern and its texture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[np.floating[Any]]
"""One number per pixel: shape (height, width)."""
Picture = NDArray[np.floating[Any]]
"""Colours: shape (height, width, 3), 0 to 1."""
Colour = tuple[float, float, float]
"""Red, green, blue, each 0 to 1."""

WHITE: Colour = (0.95, 0.95, 0.93)
INK: Colour = (0.10, 0.10, 0.12)
STEEL: Colour = (0.70, 0.72, 0.75)
BRASS: Colour = (0.80, 0.63, 0.32)
OAK: Colour = (0.73, 0.54, 0.34)
WALNUT: Colour = (0.42, 0.27, 0.17)


@dataclass(frozen=True, slots=True)
class Paint:
    """A surface: `scale` is pattern repeats per unit, `gloss` 0 (matt) to 1 (polished)."""

    colour: Colour
    accent: Colour = WHITE
    pattern: str = "plain"
    scale: float = 5.0
    gloss: float = 0.15
    texture: str = "none"


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The blend of a and b with this share of b."""
    r, g, c = (x + (y - x) * share for x, y in zip(a, b, strict=True))
    return (r, g, c)


def shaded(colour: Colour, factor: float) -> Colour:
    """Darker below 1, lighter above."""
    r, g, b = (min(1.0, c * factor) for c in colour)
    return (r, g, b)


def plane(colour: Colour) -> Picture:
    """The colour as a picture of one pixel, shape (1, 1, 3)."""
    return np.asarray(colour, dtype=np.float32)[None, None]


def _wave(x: Plane) -> Plane:
    """Distance from the nearest whole number, 0 to 0.5."""
    away: Plane = np.abs(x - np.round(x))
    return away


def _cells(u: Plane, v: Plane) -> tuple[Plane, Plane]:
    """Coordinates within a lattice whose every second row is shifted by half a cell."""
    row = np.floor(v)
    shifted = u + 0.5 * (row % 2)
    return shifted - np.floor(shifted) - 0.5, v - row - 0.5


def _dots(u: Plane, v: Plane) -> Plane:
    x, y = _cells(u, v)
    return 0.27 - np.hypot(x, y)


def _flowers(u: Plane, v: Plane) -> Plane:
    x, y = _cells(u * 0.75, v * 0.75)
    radius = np.hypot(x, y)
    petals = 0.28 + 0.12 * np.cos(5 * np.arctan2(y, x)) - radius
    return np.asarray(np.minimum(petals, radius - 0.09))


def _argyle(u: Plane, v: Plane) -> Plane:
    return np.subtract(0.25, np.abs(_wave(u * 0.8) + _wave(v * 0.6) - 0.5))


def _terrazzo(u: Plane, v: Plane) -> Plane:
    return sample(noise(3), u * 26, v * 26) - 0.62


# A pattern is positive where the accent colour is; its slope at zero is about 1 per repeat.
PATTERNS: dict[str, Callable[[Plane, Plane], Plane]] = {
    "striped": lambda u, v: 0.25 - _wave(v),
    "pinstriped": lambda u, v: 0.09 - _wave(u * 1.6),
    "dotted": _dots,
    "zigzag": lambda u, v: 0.22 - _wave(v + 0.9 * _wave(u)),
    "wavy": lambda u, v: 0.24 - _wave(v + 0.22 * np.sin(6.28 * u)),
    "diagonal": lambda u, v: 0.25 - _wave((u + v) * 0.75),
    "flowered": _flowers,
    "argyle": _argyle,
    "terrazzo": _terrazzo,
}


def accent_share(paint: Paint, u: Plane, v: Plane, pixel: float) -> Plane:
    """The share of the accent colour, 0 to 1; `pixel` is a pixel's size in object units."""
    u, v = u * paint.scale, v * paint.scale
    soft = max(pixel * paint.scale, 1e-3)
    if paint.pattern == "checked":
        across, down = (np.clip(0.5 + (0.25 - _wave(w)) / soft, 0, 1) for w in (u, v))
        return np.asarray((across + down) / 2, dtype=np.float32)
    share = np.clip(0.5 + PATTERNS[paint.pattern](u, v) / soft, 0, 1)
    return np.asarray(share, dtype=np.float32)


def grain(texture: str, u: Plane, v: Plane) -> Plane:
    """Brightness of a texture, about 1 on average."""
    if texture == "wood":
        return 0.84 + 0.32 * sample(noise(5), u * 420 + 9 * np.sin(v * 5), v * 28)
    if texture == "leather":
        return 0.96 + 0.08 * sample(noise(3), u * 170, v * 170)
    weave = sample(noise(2), u * 330, v * 90) + sample(noise(2), u * 90, v * 330)
    return 0.90 + 0.10 * weave


def sample(tile: Plane, x: Plane, y: Plane) -> Plane:
    """The tile's values at x and y in pixels, repeated endlessly."""
    high, wide = tile.shape
    values: Plane = tile[y.astype(np.int32) % high, x.astype(np.int32) % wide]
    return values


@lru_cache
def noise(cell: int) -> Plane:
    """A tile of smooth noise, 0 to 1, whose features are about `cell` pixels wide."""
    count = 512 // cell
    coarse = np.random.default_rng(cell).random((count, count), dtype=np.float32)
    fine = np.asarray(Image.fromarray(coarse).resize((512, 512), Image.Resampling.BICUBIC))
    return np.asarray(np.clip(fine, 0, 1), dtype=np.float32)
