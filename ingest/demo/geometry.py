"""Outlines in object coordinates: points of shape (n, 2), x to the right, y down, about -1 to 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]


def ellipse(
    cx: float,
    cy: float,
    rx: float,
    ry: float | None = None,
    start: float = 0.0,
    end: float = 360.0,
    power: float = 2.0,
) -> Points:
    """An ellipse, or its arc from `start` to `end` degrees (clockwise from the right).

    `power` above 2 squares it off: Lamé's superellipse |x|^p + |y|^p = 1.
    """
    angle = np.radians(np.linspace(start, end, 57))
    x, y = np.cos(angle), np.sin(angle)
    bend = 2.0 / power
    x, y = np.sign(x) * np.abs(x) ** bend, np.sign(y) * np.abs(y) ** bend
    return np.stack([cx + rx * x, cy + (rx if ry is None else ry) * y], axis=1)


def smooth(points: ArrayLike, *, closed: bool = True, steps: int = 8) -> Points:
    """The Catmull-Rom curve through the points."""
    p = np.asarray(points, dtype=np.float64)
    if not closed:
        p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
        a, b, c, d = p[:-3], p[1:-2], p[2:-1], p[3:]
    else:
        a, b, c, d = np.roll(p, 1, 0), p, np.roll(p, -1, 0), np.roll(p, -2, 0)
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    a, b, c, d = a[:, None], b[:, None], c[:, None], d[:, None]
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    flat: Points = curve.reshape(-1, 2)
    return flat if closed else np.concatenate([flat, p[-2:-1]])


def box(x0: float, y0: float, x1: float, y1: float, radius: float = 0.0) -> Points:
    """A rectangle with rounded corners."""
    r = min(radius, (x1 - x0) / 2, (y1 - y0) / 2)
    corners = [(x1 - r, y1 - r, 0), (x0 + r, y1 - r, 90), (x0 + r, y0 + r, 180)]
    corners.append((x1 - r, y0 + r, 270))
    return np.concatenate([ellipse(x, y, r, r, a, a + 90)[::7] for x, y, a in corners])


def mirrored(half: ArrayLike) -> Points:
    """The closed symmetric outline with this right half, given from top to bottom."""
    right = np.asarray(half, dtype=np.float64)
    return np.concatenate([right, right[::-1] * (-1, 1)])


def lathe(profile: Sequence[tuple[float, float]], flat: float, *, sharp: bool = False) -> Points:
    """A body of revolution seen from slightly above: (y, radius) from top to bottom.

    `flat` is how far the circles open: their height over their width.
    """
    pairs = np.asarray([(r, y) for y, r in profile], dtype=np.float64)
    side = pairs if sharp else smooth(pairs, closed=False)
    (top_r, top_y), (low_r, low_y) = side[0], side[-1]
    under = ellipse(0, low_y, low_r, low_r * flat, 0, 180)
    over = ellipse(0, top_y, top_r, top_r * flat, 180, 360)
    return np.concatenate([side, under, side[::-1] * (-1, 1), over])


def turn(points: Points, degrees: float, about: tuple[float, float] = (0.0, 0.0)) -> Points:
    """The points rotated clockwise about a centre."""
    a = np.radians(degrees)
    spin = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
    turned: Points = (points - about) @ spin + about
    return turned


def moved(points: Points, across: float, down: float) -> Points:
    """The points, or one point, translated."""
    shifted: Points = points + np.array((across, down))
    return shifted


def disc(at: Points, radius: float, start: float = 0.0, end: float = 360.0) -> Points:
    """A circle, or its arc, about a point."""
    return ellipse(float(at[0]), float(at[1]), radius, radius, start, end)


def path(*points: tuple[float, float]) -> Points:
    """An open or closed polyline."""
    return np.asarray(points, dtype=np.float64)
