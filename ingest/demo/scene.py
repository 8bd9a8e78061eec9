"""The backgrounds of product photos."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from ingest.demo.paint import OAK, WALNUT, Colour, Picture, Plane, mix, noise, plane, sample
from ingest.demo.shading import soften
from ingest.demo.surfaces import Surface, boards, tiles

BACKDROPS: tuple[Colour, ...] = (
    (0.93, 0.92, 0.90), (0.88, 0.90, 0.92), (0.90, 0.86, 0.80), (0.82, 0.87, 0.84),
    (0.92, 0.84, 0.80), (0.80, 0.84, 0.90), (0.94, 0.90, 0.80), (0.78, 0.77, 0.76),
)  # fmt: skip


def standing(size: int, form: np.random.Generator) -> Picture:
    """A background for an upright product."""
    return _places(STANDING, size, form)


def lying(size: int, form: np.random.Generator) -> Picture:
    """A background for a product that lies flat, seen from above."""
    return _places(LYING, size, form)


def _places(
    places: tuple[Callable[[int, np.random.Generator], Picture], ...],
    size: int,
    form: np.random.Generator,
) -> Picture:
    return places[int(form.integers(len(places)))](size, form)


@lru_cache(maxsize=1)
def _grid(size: int) -> tuple[Plane, Plane]:
    down, across = np.mgrid[0:size, 0:size].astype(np.float32) / size
    return across, down


def _backdrop(form: np.random.Generator) -> Colour:
    return BACKDROPS[int(form.integers(len(BACKDROPS)))]


def _timber(form: np.random.Generator) -> Colour:
    return mix(WALNUT, mix(OAK, (0.95, 0.85, 0.70), 0.5), form.uniform(0.1, 1.0))


def _pool(size: int, form: np.random.Generator, strength: float) -> Plane:
    """Light that falls off from a point in the upper half."""
    along = np.linspace(0, 1, size, dtype=np.float32)
    x, y = form.uniform(0.25, 0.6), form.uniform(0.15, 0.4)
    down, across = np.exp(-((along - y) ** 2) / 0.35), np.exp(-((along - x) ** 2) / 0.35)
    pool: Plane = 1 - strength + 1.35 * strength * np.outer(down, across)
    return pool


def _sweep(size: int, form: np.random.Generator) -> Picture:
    """A paper roll: wall and floor without an edge."""
    paper = _backdrop(form)
    down = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    bend = 1 / (1 + np.exp(-(down - form.uniform(0.62, 0.74)) / 0.05))
    tone = _pool(size, form, 0.16) * (1 + 0.05 * bend)
    swept: Picture = plane(paper) * tone[..., None]
    return swept


def _table(size: int, form: np.random.Generator) -> Picture:
    """A wooden table in front of a plain wall."""
    wall = plane(mix(_backdrop(form), (0.6, 0.64, 0.66), form.uniform(0, 0.6)))
    wall = wall * _pool(size, form, 0.22)[..., None]
    return _floored(size, form, wall, boards(_timber(form)), form.uniform(0.55, 0.66))


def _room(size: int, form: np.random.Generator) -> Picture:
    """A painted wall, a skirting board and a floor."""
    paints = [(0.72, 0.79, 0.76), (0.80, 0.74, 0.68), (0.66, 0.73, 0.82), (0.86, 0.80, 0.66)]
    wall = plane(paints[int(form.integers(4))]) * _pool(size, form, 0.25)[..., None]
    edge = form.uniform(0.58, 0.68)
    high = int(edge * size)
    board = slice(high - int(0.055 * size), high)
    wall[board] = 0.93 * _pool(size, form, 0.15)[board, :, None]
    wall[board.start : board.start + 2] *= 0.82
    floor = boards(_timber(form)) if form.random() < 0.6 else tiles(_backdrop(form))
    return _floored(size, form, wall, floor, edge)


def _window(size: int, form: np.random.Generator) -> Picture:
    """A table in front of a distant background out of focus."""
    coarse = (form.random((7, 7, 1)) * 0.3 + form.random((7, 7, 3)) * 0.15).astype(np.float32)
    hue = plane(mix(_backdrop(form), (0.45, 0.60, 0.45), form.uniform(0, 0.7)))
    index = np.linspace(0, 6, size).astype(np.int32)
    blurred = (0.72 * hue + 0.45 * coarse)[index][:, index]
    channels = [soften(np.ascontiguousarray(blurred[..., n]), size / 14) for n in range(3)]
    return _floored(
        size, form, np.stack(channels, axis=2), boards(_timber(form)), form.uniform(0.6, 0.7)
    )


def _floored(
    size: int,
    form: np.random.Generator,
    wall: Picture,
    floor: Surface,
    edge: float,
) -> Picture:
    """The wall with a level surface in front of it, in perspective from `edge` down."""
    scene = np.broadcast_to(wall, (size, size, 3)).copy()
    first = int(edge * size)
    down = (np.arange(first, size, dtype=np.float32) / size)[:, None] + 0.0
    across = (np.arange(size, dtype=np.float32) / size - form.uniform(0.3, 0.7))[None, :]
    depth = 1 / (down - edge + 0.45)
    surface = floor(across * depth, depth + form.uniform(0, 3) + 0 * across)
    light = 0.86 + 0.30 * (down - edge) / (1 - edge)
    scene[first:] = surface * light[..., None]
    # Little light reaches the edge of wall and floor; the edge is blurred by one pixel.
    near = np.exp(-np.abs(np.arange(size) - first) / (0.02 * size))[:, None, None]
    scene *= 1 - 0.18 * near
    scene[first] = (scene[first - 1] + scene[first]) / 2
    return scene


def _paper(size: int, form: np.random.Generator) -> Picture:
    return plane(_backdrop(form)) * _pool(size, form, 0.10)[..., None]


def _desk(size: int, form: np.random.Generator) -> Picture:
    across, down = _grid(size)
    u, v = (across, down) if form.random() < 0.5 else (down, across)
    wood = boards(_timber(form))(u + form.uniform(0, 2), v + form.uniform(0, 2))
    lit: Picture = wood * _pool(size, form, 0.15)[..., None]
    return lit


def _linen(size: int, form: np.random.Generator) -> Picture:
    across, down = _grid(size)
    weave = sample(noise(2), across * 500, down * 120) + sample(noise(2), across * 120, down * 500)
    slow = sample(noise(64), across * 300 + form.uniform(0, 200), down * 300)
    tone = (0.85 + 0.10 * weave + 0.10 * slow) * _pool(size, form, 0.12)
    return plane(mix(_backdrop(form), (0.55, 0.60, 0.66), form.uniform(0, 0.6))) * tone[..., None]


def _stone(size: int, form: np.random.Generator) -> Picture:
    across, down = _grid(size)
    start = form.uniform(0, 300)
    slow = sample(noise(64), across * 200 + start, down * 200)
    warp = slow + 0.25 * sample(noise(20), across * 200, down * 200 + start)
    vein = np.exp(-((np.abs((across + 0.5 * down + 0.55 * warp) * 1.6 % 1 - 0.5) / 0.035) ** 2))
    tone = (0.97 - 0.13 * vein + 0.05 * warp) * _pool(size, form, 0.10)
    return plane((0.90, 0.90, 0.90)) * tone[..., None]


STANDING = (_sweep, _sweep, _table, _room, _window)
LYING = (_paper, _paper, _desk, _linen, _stone)
