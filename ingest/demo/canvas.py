"""Draws the shaded parts of an object, one on top of the other, on a transparent canvas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ingest.demo.geometry import Points
from ingest.demo.paint import Paint, Picture, Plane, accent_share, grain, plane
from ingest.demo.shading import flat, rounded, soften, turned

Shade = Literal["flat", "round", "turned"]
Region = tuple[slice, slice]

# Supersampling factor of outlines, for smooth edges.
FINER = 3


@dataclass(frozen=True, slots=True)
class View:
    """The camera: a homography from object coordinates to pixels."""

    matrix: NDArray[np.float64]
    light: float = 1.0
    """1 when the light comes from the left, -1 from the right."""

    @property
    def scale(self) -> float:
        """Pixels per object unit near the middle."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:2, :2]))))

    def pixels(self, points: Points) -> Points:
        """Object coordinates to pixels, shape (n, 2)."""
        flat_points = np.column_stack([points, np.ones(len(points))]) @ self.matrix.T
        seen: Points = flat_points[:, :2] / flat_points[:, 2:]
        return seen

    def objects(self, region: Region) -> tuple[Plane, Plane]:
        """The object coordinates of every pixel of a region."""
        back = np.linalg.inv(self.matrix)
        rows, columns = (np.arange(s.start, s.stop) + 0.5 for s in region)
        x, y, w = (m[0] * columns[None, :] + m[1] * rows[:, None] + m[2] for m in back)
        return (x / w).astype(np.float32), (y / w).astype(np.float32)


class Canvas:
    """The object drawn so far: `rgb` (premultiplied) and `alpha`, 0 to 1, `size` pixels square."""

    def __init__(self, size: int, view: View) -> None:
        self.view = view
        self.rgb = np.zeros((size, size, 3), np.float32)
        self.alpha = np.zeros((size, size), np.float32)
        self._last: tuple[Region, Plane] | None = None

    def fill(
        self,
        outline: Points,
        paint: Paint,
        shade: Shade = "round",
        *,
        holes: Sequence[Points] = (),
        depth: float = 0.08,
        cast: float = 0.0,
    ) -> None:
        """Fills an outline; `depth`: width of the rounded border, `cast`: shadow strength."""
        seen = self.view.pixels(outline)
        cut = [self.view.pixels(hole) for hole in holes]

        def draw(pen: ImageDraw.ImageDraw, place: Callable[[Points], list[float]]) -> None:
            pen.polygon(place(seen), fill=255)
            for hole in cut:
                pen.polygon(place(hole), fill=0)

        self._paint(self._mask(seen, 3.0 + 14 * (cast > 0), draw), paint, shade, depth, cast)

    def line(
        self,
        run: Points,
        width: float,
        paint: Paint,
        shade: Shade = "round",
        *,
        cast: float = 0.0,
    ) -> None:
        """Draws a tube with round ends along a polyline, `width` in object units."""
        region = self._stroke(run, width, 14.0 * (cast > 0))
        self._paint(region, paint, shade, width * 0.4, cast)

    def tone(self, outline: Points, amount: float, blur: float = 0.03) -> None:
        """Darkens (below 0) or lightens the part drawn last inside a soft outline."""
        seen = self.view.pixels(outline)
        spread = blur * self.view.scale
        found = self._mask(seen, 3 * spread, lambda pen, place: pen.polygon(place(seen), fill=255))
        self._tint(found, amount, spread)

    def crease(self, run: Points, width: float, amount: float, blur: float = 0.015) -> None:
        """Like `tone`, along a polyline."""
        spread = blur * self.view.scale
        self._tint(self._stroke(run, width, 3 * spread), amount, spread)

    def _stroke(self, run: Points, width: float, margin: float) -> tuple[Region, Plane] | None:
        seen = self.view.pixels(run)
        thick = width * self.view.scale

        def draw(pen: ImageDraw.ImageDraw, place: Callable[[Points], list[float]]) -> None:
            flat_run = place(seen)
            pen.line(flat_run, fill=255, width=max(1, round(thick * FINER)), joint="curve")
            for x, y in (flat_run[:2], flat_run[-2:]):
                r = thick * FINER / 2
                pen.ellipse((x - r, y - r, x + r, y + r), fill=255)

        return self._mask(seen, margin + 3 + thick, draw)

    def _mask(
        self,
        seen: Points,
        margin: float,
        draw: Callable[[ImageDraw.ImageDraw, Callable[[Points], list[float]]], None],
    ) -> tuple[Region, Plane] | None:
        size = len(self.alpha)
        low = np.clip(np.floor(seen.min(0) - margin), 0, size).astype(int)
        high = np.clip(np.ceil(seen.max(0) + margin), 0, size).astype(int)
        if (high <= low).any():
            return None
        wide, tall = (int(n) for n in high - low)
        image = Image.new("L", (wide * FINER, tall * FINER))
        draw(ImageDraw.Draw(image), lambda p: [float(n) for n in ((p - low) * FINER).ravel()])
        covered = np.asarray(image.reduce(FINER), dtype=np.float32) / np.float32(255)
        return (slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))), covered

    def _paint(
        self,
        found: tuple[Region, Plane] | None,
        paint: Paint,
        shade: Shade,
        depth: float,
        cast: float,
    ) -> None:
        if found is None:
            return
        region, covered = found
        if cast:
            self._cast(region, covered, cast)
        colour = self._surface(region, covered, paint, shade, depth)
        share = covered[..., None]
        self.rgb[region] = self.rgb[region] * (1 - share) + colour * share
        self.alpha[region] += (1 - self.alpha[region]) * covered
        self._last = found

    def _surface(
        self, region: Region, covered: Plane, paint: Paint, shade: Shade, depth: float
    ) -> Picture:
        light, across = self.view.light, None
        if shade == "turned":
            bright, shine, across = turned(covered, light)
        elif shade == "round":
            bright, shine = rounded(covered, depth * self.view.scale, light)
        else:
            bright, shine = flat(covered.shape, light)
        base = self._base(region, paint, across)
        lit: Picture = base * bright[..., None] + (paint.gloss * shine)[..., None]
        return np.clip(lit, 0, 1)

    def _base(self, region: Region, paint: Paint, across: Plane | None) -> Picture:
        base = plane(paint.colour)
        if paint.pattern == "plain" and paint.texture == "none":
            return base
        u, v = self.view.objects(region)
        if across is not None:
            # A pattern wraps around a body of revolution: equal steps of angle, not of width.
            half = (u[:, -1:] - u[:, :1]) / 2
            u, v = half * np.arcsin(across), v - 0.14 * np.abs(half) * np.sqrt(1 - across**2)
        if paint.pattern != "plain":
            share = accent_share(paint, u, v, 1 / self.view.scale)[..., None]
            base = base * (1 - share) + plane(paint.accent) * share
        if paint.texture != "none":
            base = base * grain(paint.texture, u, v)[..., None]
        return base

    def _cast(self, region: Region, covered: Plane, strength: float) -> None:
        shadow = soften(covered, 4.0)
        shadow = np.roll(shadow, (4, round(3 * self.view.light)), (0, 1))
        self.rgb[region] *= (1 - strength * shadow)[..., None]

    def _tint(self, found: tuple[Region, Plane] | None, amount: float, spread: float) -> None:
        if found is None or self._last is None:
            return
        region, covered = found
        limit = np.zeros_like(self.alpha)
        limit[self._last[0]] = self._last[1]
        share = (soften(covered, spread) * limit[region] * abs(amount))[..., None]
        target = 1.0 if amount > 0 else 0.0
        self.rgb[region] += (target * self.alpha[region][..., None] - self.rgb[region]) * share
