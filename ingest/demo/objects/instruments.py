"""Draws instruments and headphones."""

from __future__ import annotations

import numpy as np

from ingest.demo.canvas import Canvas
from ingest.demo.geometry import Points, box, ellipse, mirrored, moved, path, smooth
from ingest.demo.look import BLACK, METAL, Appearance
from ingest.demo.paint import BRASS, INK, WALNUT, WHITE, Paint


def headphones(c: Canvas, look: Appearance) -> None:
    """Headphones from the front, the band above, the cups at the sides."""
    form = look.form()
    wide, top = form.uniform(0.50, 0.60), form.uniform(-0.76, -0.62)
    thick, cup = form.uniform(0.07, 0.14), form.uniform(0.26, 0.36)
    deep, low = form.uniform(0.13, 0.19), form.uniform(0.24, 0.34)
    band = ellipse(0, low - 0.1, wide, low - 0.1 - top, 180, 360, form.uniform(2.0, 2.6))
    c.line(band, thick, look.paint)
    c.line(moved(band[14:-14], 0, thick * 0.42), thick * 0.55, look.second(0.8))
    slider = METAL if form.random() < 0.6 else look.second()
    for side in (-1, 1):
        c.line(path((side * wide, low - 0.34), (side * wide, low - 0.1)), thick * 0.6, slider)
        inner = ellipse(side * (wide - deep * 0.85), low, deep * 0.75, cup * 0.92, power=2.8)
        c.fill(inner, BLACK if form.random() < 0.5 else look.second(0.7), depth=0.07)
        outer = ellipse(side * (wide + deep * 0.10), low, deep, cup, power=2.6)
        c.fill(outer, look.paint, depth=0.09, cast=0.4)
        ring = ellipse(side * (wide + deep * 0.25), low, deep * 0.55, cup * 0.62)
        c.fill(ring, look.second(1.0, 0.5), depth=0.05)
        dot = ellipse(side * (wide + deep * 0.27), low, deep * 0.36, cup * 0.42)
        c.fill(dot, look.plain(0.85), depth=0.04)


def guitar(c: Canvas, look: Appearance) -> None:
    """A guitar, upright: acoustic or electric."""
    form = look.form()
    electric = form.random() < 0.45
    neck = Paint(WALNUT if form.random() < 0.5 else (0.66, 0.45, 0.26), gloss=0.2, texture="wood")
    (_electric if electric else _acoustic)(c, look, form)
    thick = form.uniform(0.042, 0.052)
    end = 0.12 if electric else 0.10
    c.fill(mirrored([(thick * 0.85, -0.70), (thick * 1.1, end)]), neck, depth=0.03, cast=0.35)
    for share in (1 - 0.5 ** (np.arange(1, 15) / 9)) / 0.66:
        y = -0.70 + (end + 0.70) * share
        c.line(path((-thick, y), (thick, y)), 0.007, METAL, "flat")
    _head(c, look, form, neck, thick)
    for x in np.linspace(-0.75, 0.75, 6):
        c.line(
            path((x * thick, -0.72), (x * thick * 1.15, 0.46)),
            0.004,
            Paint((0.88, 0.86, 0.8)),
            "flat",
        )


def _acoustic(c: Canvas, look: Appearance, form: np.random.Generator) -> None:
    upper, waist, lower = (
        form.uniform(0.23, 0.28),
        form.uniform(0.19, 0.23),
        form.uniform(0.33, 0.40),
    )
    half = [(0.0, -0.10), (upper * 0.7, -0.11), (upper, 0.04), (waist, 0.24), (lower * 0.9, 0.46)]
    half += [(lower, 0.62), (lower * 0.72, 0.82), (0.0, 0.86)]
    right = smooth(half, closed=False)
    c.fill(mirrored(right), look.plain(0.55), depth=0.04)
    c.fill(mirrored(right * (0.955, 0.975) + (0, 0.010)), look.paint, depth=0.04)
    ring = Paint(WALNUT)
    c.fill(ellipse(0, 0.20, 0.125), look.second(), "flat")
    c.fill(ellipse(0, 0.20, 0.115), ring, "flat")
    c.fill(ellipse(0, 0.20, 0.10), Paint(INK), "flat")
    if form.random() < 0.5:
        guard = smooth([(0.08, 0.12), (0.16, 0.18), (0.19, 0.40), (0.10, 0.42), (0.11, 0.26)])
        c.fill(guard, Paint((0.22, 0.12, 0.08), gloss=0.4), "flat")
    c.fill(box(-0.16, 0.50, 0.16, 0.56, 0.02), Paint(WALNUT), depth=0.02, cast=0.3)


def _electric(c: Canvas, look: Appearance, form: np.random.Generator) -> None:
    long, horn = form.uniform(-0.16, -0.04), form.uniform(-0.06, 0.06)
    wide = form.uniform(0.30, 0.36)
    body: list[tuple[float, float]] = [
        (0.06, 0.10),
        (0.16, 0.08),
        (0.24, horn),
        (0.30, horn + 0.05),
    ]
    body += [(0.24, 0.26), (wide, 0.56), (0.24, 0.80), (0, 0.86), (-0.26, 0.80), (-wide, 0.56)]
    body += [(-0.25, 0.28), (-0.34, long + 0.08), (-0.28, long), (-0.16, 0.06), (-0.06, 0.10)]
    c.fill(smooth(body), look.paint, depth=0.05)
    if form.random() < 0.7:
        guard = [
            (-0.10, 0.10),
            (0.12, 0.12),
            (0.17, 0.30),
            (0.25, 0.58),
            (0.12, 0.66),
            (-0.10, 0.52),
        ]
        c.fill(
            smooth(guard), look.second(1.0, 0.3) if form.random() < 0.5 else Paint(WHITE), "flat"
        )
    for y in (0.20, 0.34, 0.48)[int(form.integers(2)) :]:
        c.fill(box(-0.10, y - 0.03, 0.10, y + 0.03, 0.02), BLACK, depth=0.02, cast=0.3)
    c.fill(box(-0.09, 0.56, 0.09, 0.64, 0.01), METAL, depth=0.02, cast=0.3)
    for n in range(2):
        c.fill(ellipse(0.17 + 0.04 * n, 0.56 + 0.10 * n, 0.03), METAL, depth=0.02, cast=0.3)


def _head(
    c: Canvas, look: Appearance, form: np.random.Generator, neck: Paint, thick: float
) -> None:
    paint = look.plain() if form.random() < 0.4 else neck
    flare = form.uniform(1.4, 2.0)
    pegs = Paint(BRASS, gloss=0.6) if form.random() < 0.4 else METAL
    for side in (-1, 1):
        for y in (-0.90, -0.84, -0.78):
            c.fill(ellipse(side * thick * (flare + 0.55), y, 0.028, 0.018), pegs, depth=0.015)
    shape: Points = mirrored([(thick * flare * 0.9, -0.95), (thick * flare, -0.80), (thick, -0.70)])
    c.fill(shape, paint, depth=0.03, cast=0.3)
