"""Draws watches and sunglasses."""

from __future__ import annotations

import numpy as np

from ingest.demo.canvas import Canvas
from ingest.demo.geometry import Points, box, ellipse, mirrored, path, smooth
from ingest.demo.look import BLACK, METAL, RUBBER, Appearance
from ingest.demo.paint import BRASS, INK, WHITE, Paint, mix


def watch(c: Canvas, look: Appearance) -> None:
    """A wristwatch laid flat, its strap up and down."""
    form = look.form()
    size, power = form.uniform(0.27, 0.36), form.choice([2.0, 2.0, 2.0, 5.0])
    strap, taper = size * form.uniform(0.58, 0.80), form.uniform(0.70, 0.95)
    metal = Paint(BRASS, gloss=0.8) if form.random() < 0.35 else METAL
    linked = form.random() < 0.3
    for side in (-1, 1):
        half = [(strap, size * 0.7), (strap * taper, 0.86), (strap * taper * 0.7, 0.92)]
        c.fill(mirrored(half) * (1, side), metal if linked else look.paint, depth=0.04)
        _strap(c, strap, side, linked, size)
    c.fill(box(size - 0.02, -0.05, size + 0.07, 0.05, 0.02), metal, depth=0.03)
    c.fill(ellipse(0, 0, size, power=power), metal, depth=0.05, cast=0.4)
    face = look.second() if form.random() < 0.5 else Paint(WHITE)
    if form.random() < 0.3:
        face = BLACK
    inner = size * form.uniform(0.80, 0.90)
    c.fill(ellipse(0, 0, inner, power=power), face, "flat")
    mark = Paint(INK if sum(face.colour) > 1.4 else WHITE)
    for hour in range(12):
        way = np.array([np.sin(hour * np.pi / 6), -np.cos(hour * np.pi / 6)]) * inner
        c.line(np.stack([0.9 * way, (0.72 if hour % 3 == 0 else 0.8) * way]), 0.018, mark, "flat")
    if form.random() < 0.35:
        c.fill(ellipse(0, inner * 0.42, inner * 0.24), Paint(mix(face.colour, INK, 0.2)), "flat")
    for angle, far in ((form.uniform(0, 6.3), 0.48), (form.uniform(0, 6.3), 0.72)):
        end = inner * far * np.array([np.sin(angle), -np.cos(angle)])
        c.line(np.stack([-0.1 * end, end]), 0.024, mark, "flat", cast=0.3)
    c.fill(ellipse(0, 0, 0.022), metal, "flat")
    c.tone(ellipse(-inner * 0.4, -inner * 0.5, inner * 0.35, inner * 0.2), 0.35, 0.05)


def _strap(c: Canvas, strap: float, side: int, linked: bool, size: float) -> None:
    if linked:
        for y in np.arange(size, 0.92, 0.075):
            c.crease(path((-strap, side * y), (strap, side * y)), 0.012, -0.6, 0.006)
        for x in (-0.4, 0.4):
            c.crease(
                path((x * strap, side * size), (x * strap * 0.9, side * 0.9)), 0.01, -0.35, 0.006
            )
        return
    for x in (-0.84, 0.84):
        c.crease(path((x * strap, side * size), (x * strap * 0.86, side * 0.84)), 0.010, 0.4, 0.004)
    if side == 1:
        for y in np.arange(size + 0.22, 0.85, 0.10):
            c.fill(ellipse(0, y, 0.018), RUBBER, "flat")


def sunglasses(c: Canvas, look: Appearance) -> None:
    """Sunglasses from the front, their arms folded out behind."""
    form = look.form()
    wide, tall, gap = form.uniform(0.28, 0.35), form.uniform(0.20, 0.30), form.uniform(0.07, 0.12)
    style, rim = int(form.integers(4)), form.uniform(0.03, 0.065)
    frame = METAL if style == 1 and form.random() < 0.5 else look.paint
    glass = Paint(mix((0.10, 0.10, 0.11), look.trim, form.uniform(0.0, 0.6)), gloss=0.6)
    x = gap + wide
    for side in (-1, 1):
        arm = path(
            (x + wide * 0.95, -tall * 0.6), (x + wide * 1.0, -tall - 0.22), (x * 0.9, -tall - 0.40)
        )
        c.line(smooth(arm, closed=False) * (side, 1), 0.045, frame)
    for side in (-1, 1):
        lens = _lens(style, wide, tall) * (side, 1) + (side * x, 0)
        c.fill(lens, frame, depth=rim * 0.5)
        hole = (lens - (side * x, 0)) * (1 - rim / wide, 1 - rim / tall) + (side * x, 0)
        c.fill(hole, glass, depth=0.03)
        c.tone(
            smooth(
                [
                    (side * x - 0.18, -0.02),
                    (side * x - 0.05, -0.16),
                    (side * x + 0.06, -0.17),
                    (side * x - 0.13, 0.06),
                ]
            ),
            0.38,
            0.02,
        )
        c.tone(ellipse(side * x, tall * 0.9, wide, tall * 0.5), 0.18, 0.08)
    bridge = smooth(
        [(-gap - 0.05, -tall * 0.30), (0, -tall * 0.52), (gap + 0.05, -tall * 0.30)], closed=False
    )
    c.line(bridge, max(rim, 0.04), frame)
    if style == 1:
        c.line(path((-gap - 0.1, -tall * 0.9), (gap + 0.1, -tall * 0.9)), 0.03, frame)


def _lens(style: int, wide: float, tall: float) -> Points:
    if style == 0:
        return ellipse(0, 0, wide * 0.92, wide * 0.92)
    if style == 1:
        drop = [(-wide, -tall * 0.8), (0, -tall), (wide, -tall * 0.8), (wide * 0.9, tall * 0.3)]
        return smooth([*drop, (wide * 0.2, tall * 1.15), (-wide * 0.7, tall * 0.7)])
    if style == 2:
        cat = [(-wide * 0.9, -tall * 0.6), (wide * 0.4, -tall * 0.9), (wide * 1.2, -tall * 1.25)]
        return smooth(
            [*cat, (wide * 0.9, tall * 0.5), (0, tall * 0.85), (-wide * 0.85, tall * 0.4)]
        )
    return ellipse(0, 0, wide, tall, power=3.6)
