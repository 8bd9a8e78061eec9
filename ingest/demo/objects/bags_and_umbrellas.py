"""Draws backpacks and umbrellas."""

from __future__ import annotations

import numpy as np

from ingest.demo.canvas import Canvas
from ingest.demo.geometry import Points, box, ellipse, path, smooth
from ingest.demo.look import BLACK, METAL, Appearance
from ingest.demo.paint import BRASS, OAK, Paint


def backpack(c: Canvas, look: Appearance) -> None:
    """A backpack from the front."""
    form = look.form()
    wide, top, low = form.uniform(0.44, 0.54), form.uniform(-0.72, -0.58), 0.78
    power = form.uniform(2.6, 4.2)
    for side in (-1, 1):
        strap = [(side * wide * 0.5, top + 0.1), (side * (wide + 0.10), -0.10)]
        strap += [(side * (wide + 0.12), 0.40), (side * wide * 0.85, 0.68)]
        c.line(smooth(strap, closed=False), 0.10, look.plain(0.6))
    c.line(ellipse(0, top + 0.02, 0.15, 0.14, 180, 360), 0.055, look.second(0.8))
    c.fill(ellipse(0, (top + low) / 2, wide, (low - top) / 2, power=power), look.paint, depth=0.11)
    style = int(form.integers(3))
    if style == 0:
        _flap(c, look, form, wide, top)
    elif style == 1:
        arch = ellipse(0, top + 0.42, wide * 0.80, 0.32, 180, 360, 2.6)
        c.line(arch, 0.028, BLACK, "flat")
        c.line(path((wide * 0.80, top + 0.42), (wide * 0.80, top + 0.52)), 0.02, METAL)
    else:
        c.line(path((-wide * 0.9, top + 0.30), (wide * 0.9, top + 0.30)), 0.03, BLACK, "flat")
        c.fill(
            box(-wide * 0.92, top + 0.02, wide * 0.92, top + 0.22, 0.08),
            look.plain(0.85),
            depth=0.04,
        )
    _pocket(c, look, form, wide, low)
    for side in (-1, 1):
        if form.random() < 0.6:
            c.fill(
                box(side * wide - 0.06, 0.2, side * wide + 0.06, low - 0.08, 0.06),
                look.plain(0.8),
                depth=0.05,
                cast=0.3,
            )


def _flap(c: Canvas, look: Appearance, form: np.random.Generator, wide: float, top: float) -> None:
    end = form.uniform(0.02, 0.14)
    flap = [(-wide * 0.98, top + 0.20), (-wide * 0.7, top - 0.01), (wide * 0.7, top - 0.01)]
    flap += [
        (wide * 0.98, top + 0.20),
        (wide * 0.96, end - 0.08),
        (0, end),
        (-wide * 0.96, end - 0.08),
    ]
    c.fill(
        smooth(flap),
        look.plain(0.9) if form.random() < 0.6 else look.second(),
        depth=0.05,
        cast=0.45,
    )
    leather = Paint((0.48, 0.29, 0.16), texture="leather")
    for x in (-0.5, 0.5):
        c.line(path((x * wide, top + 0.12), (x * wide, end + 0.14)), 0.06, leather, cast=0.3)
        c.fill(
            box(x * wide - 0.05, end + 0.0, x * wide + 0.05, end + 0.08, 0.01),
            Paint(BRASS, gloss=0.6),
            depth=0.02,
        )


def _pocket(
    c: Canvas, look: Appearance, form: np.random.Generator, wide: float, low: float
) -> None:
    high, half = form.uniform(0.36, 0.52), wide * form.uniform(0.66, 0.84)
    y = low - 0.07 - high
    paint = look.second(0.95) if form.random() < 0.5 else look.plain(0.92)
    c.fill(box(-half, y, half, low - 0.07, form.uniform(0.06, 0.16)), paint, depth=0.06, cast=0.45)
    zip_y = y + form.uniform(0.06, 0.12)
    c.line(path((-half * 0.86, zip_y), (half * 0.86, zip_y)), 0.022, BLACK, "flat")
    c.line(path((half * 0.80, zip_y), (half * 0.80, zip_y + 0.09)), 0.022, METAL)
    if form.random() < 0.6:
        c.fill(box(-0.09, y + high * 0.48, 0.09, y + high * 0.72, 0.015), look.second(0.6), "flat")


def umbrella(c: Canvas, look: Appearance) -> None:
    """An open umbrella standing on its hooked handle."""
    form = look.form()
    wide, top, edge = (
        form.uniform(0.70, 0.86),
        form.uniform(-0.76, -0.60),
        form.uniform(-0.08, 0.06),
    )
    count = int(form.integers(5, 8))
    wood = Paint(OAK, texture="wood") if form.random() < 0.5 else look.second(0.8, 0.4)
    c.line(path((0, top - 0.08), (0, top)), 0.03, wood)
    c.line(path((0, top + 0.1), (0, 0.60)), form.uniform(0.025, 0.04), METAL)
    hook = np.concatenate([path((0, 0.46)), ellipse(-0.10, 0.68, 0.10, 0.14, 0, 185)])
    c.line(hook, form.uniform(0.055, 0.075), wood)
    cuts = np.sin(np.linspace(-np.pi / 2, np.pi / 2, count + 1)) * wide
    dome = ellipse(0, edge, wide, edge - top, 180, 360)
    sag = form.uniform(0.08, 0.14)
    hem = [_scallop(a, b, edge, sag) for a, b in zip(cuts[:0:-1], cuts[-2::-1], strict=True)]
    c.fill(np.concatenate([dome, *hem]), look.paint, depth=0.16)
    _panels(c, look, form, cuts, (top, edge, sag))
    c.tone(ellipse(wide * 0.55, edge - 0.05, wide * 0.5, 0.40), -0.28, 0.12)
    c.fill(ellipse(0, top, 0.05, 0.03), look.second(0.8), depth=0.02)


def _scallop(a: float, b: float, edge: float, sag: float) -> Points:
    """The hem between two ribs curves upwards."""
    t = np.linspace(0, 1, 9)
    return np.stack([a + (b - a) * t, edge - 4.4 * sag * abs(b - a) * t * (1 - t)], axis=1)


def _panels(
    c: Canvas,
    look: Appearance,
    form: np.random.Generator,
    cuts: Points,
    frame: tuple[float, float, float],
) -> None:
    top, edge, sag = frame
    t = np.linspace(0, 1, 16)
    # A rib is a quarter of an ellipse from the tip down to its corner of the hem.
    ribs = [
        np.stack([x * np.sin(t * np.pi / 2), edge - (edge - top) * np.cos(t * np.pi / 2)], axis=1)
        for x in cuts
    ]
    if look.paint.pattern == "plain" and form.random() < 0.45:
        for n in range(0, len(cuts) - 1, 2):
            hem = _scallop(cuts[n], cuts[n + 1], edge, sag)
            panel = np.concatenate([ribs[n], hem, ribs[n + 1][::-1]])
            c.fill(panel, look.second(), "flat")
    c.tone(ellipse(-0.3, top + 0.2, 0.25, 0.10), 0.3, 0.10)
    for rib in ribs[1:-1]:
        c.line(rib, 0.010, look.plain(0.6), "flat")
