"""Draws T-shirts and trainers."""

from __future__ import annotations

import numpy as np

from ingest.demo.canvas import Canvas
from ingest.demo.geometry import box, ellipse, mirrored, path, smooth
from ingest.demo.look import RUBBER, Appearance
from ingest.demo.paint import INK, WHITE, Paint, mix


def t_shirt(c: Canvas, look: Appearance) -> None:
    """A shirt laid flat: short or long sleeves, round or V neck."""
    form = look.form()
    wide, hem, neck = form.uniform(0.38, 0.47), form.uniform(0.66, 0.82), form.uniform(0.13, 0.19)
    long = form.random() < 0.25
    out, down = (wide + 0.30, 0.42) if long else (wide + form.uniform(0.22, 0.34), -0.18)
    cuff = 0.15 if long else 0.21
    drop = form.uniform(0.08, 0.14) if form.random() < 0.7 else form.uniform(0.22, 0.32)
    half = [(neck, -0.72), (wide * 0.95, -0.62), (out, down), (out - cuff, down + 0.10)]
    half += [(wide, -0.20 if not long else -0.16), (wide * 0.98, 0.2), (wide * 1.02, hem)]
    contrast = form.random() < 0.35
    inside = mirrored(
        [(0.0, -0.74), (neck, -0.72), (neck * 0.5, -0.72 + drop), (0.0, -0.70 + drop)]
    )
    c.fill(inside, look.plain(0.55), "flat")
    throat = smooth(
        [
            (neck, -0.72),
            (neck * 0.72, -0.72 + drop * 0.7),
            (0, -0.72 + drop),
            (-neck * 0.72, -0.72 + drop * 0.7),
            (-neck, -0.72),
        ],
        closed=False,
    )
    if drop > 0.2:
        throat = path((neck, -0.72), (0, -0.72 + drop), (-neck, -0.72))
    edge = np.asarray(half)
    outline = np.concatenate([edge, edge[::-1] * (-1, 1), throat[::-1]])
    c.fill(outline, look.paint, depth=0.05)
    _folds(c, form, wide, hem)
    for side in (-1, 1):
        seam = smooth([(wide * 0.93, -0.62), (wide * 0.88, -0.42), (wide, -0.18)], closed=False)
        c.crease(seam * (side, 1), 0.012, -0.35, 0.006)
        band = path((out - 0.02, down + 0.01), (out - cuff + 0.0, down + 0.09)) * (side, 1)
        if contrast:
            c.line(band, 0.05, look.second(), "flat")
        else:
            c.crease(band - (side * 0.04, 0.02), 0.01, -0.3, 0.005)
    c.line(throat, 0.045, look.second() if contrast else look.plain(0.88))
    if look.paint.pattern == "plain" and form.random() < 0.6:
        _print(c, look, form)


def _folds(c: Canvas, form: np.random.Generator, wide: float, hem: float) -> None:
    for _ in range(6):
        x, y = form.uniform(-wide * 0.8, wide * 0.8), form.uniform(0.0, 0.5)
        fold = path((x, y), (x + form.uniform(-0.06, 0.06), min(hem - 0.03, y + 0.35)))
        c.crease(fold, 0.03, form.choice([-0.22, -0.15, 0.14]), 0.035)
    for side in (-1, 1):
        c.crease(path((side * wide * 0.95, -0.14), (side * wide * 0.45, -0.02)), 0.03, -0.25, 0.03)
    c.crease(path((-wide * 1.02, hem - 0.04), (wide * 1.02, hem - 0.04)), 0.008, -0.35, 0.005)


def _print(c: Canvas, look: Appearance, form: np.random.Generator) -> None:
    ink, size, kind = look.second(), form.uniform(0.13, 0.22), int(form.integers(4))
    if kind == 0:
        c.fill(ellipse(0, -0.12, size), ink, "flat")
        c.fill(ellipse(size * 0.35, -0.12 - size * 0.2, size * 0.78), look.plain(), "flat")
    elif kind == 1:
        for n in range(3):
            c.fill(
                box(-size, -0.25 + n * 0.11, size * (1 - 0.25 * n), -0.19 + n * 0.11), ink, "flat"
            )
    elif kind == 2:
        peaks = path((-size * 1.4, 0.05), (-size * 0.5, -0.28), (0, -0.12), (size * 0.5, -0.36))
        c.fill(np.concatenate([peaks, path((size * 1.4, 0.05))]), ink, "flat")
    else:
        turns = np.pi * (np.arange(10) / 5 - 0.5)
        reach = np.where(np.arange(10) % 2, 0.42 * size, size)
        star = np.stack([reach * np.cos(turns), reach * np.sin(turns) - 0.12], axis=1)
        c.fill(star, ink, "flat")


def trainer(c: Canvas, look: Appearance) -> None:
    """A sports shoe from the side, its toe to the right."""
    form = look.form()
    collar = -0.60 if form.random() < 0.25 else form.uniform(-0.34, -0.22)
    toe, tongue = form.uniform(-0.02, 0.08), collar - form.uniform(0.08, 0.16)
    ground = 0.46 - form.uniform(0.14, 0.24)
    upper = [(-0.78, ground + 0.06), (-0.82, -0.02), (-0.80, collar), (-0.66, collar + 0.05)]
    upper += [(-0.40, collar + 0.06), (-0.20, tongue), (-0.04, tongue + 0.05), (0.18, -0.10)]
    upper += [(0.50, toe - 0.01), (0.76, toe + 0.12), (0.84, ground + 0.02), (0.78, ground + 0.08)]
    c.fill(ellipse(-0.44, collar + 0.03, 0.26, 0.08), look.plain(0.35), "flat")
    c.fill(smooth(upper), look.paint, depth=0.09)
    c.crease(
        smooth([(-0.30, ground), (-0.16, 0.1), (-0.26, collar + 0.1)], closed=False), 0.01, -0.3
    )
    heel = [(-0.78, ground + 0.08), (-0.82, 0.0), (-0.79, collar + 0.16), (-0.70, collar + 0.20)]
    c.fill(smooth([*heel, (-0.62, 0.06), (-0.50, ground + 0.08)]), look.second(), depth=0.05)
    cap = [(0.42, ground + 0.08), (0.48, toe + 0.04), (0.70, toe + 0.09), (0.83, ground)]
    cap_paint = look.second() if form.random() < 0.5 else look.plain(0.85)
    c.fill(smooth([*cap, (0.78, ground + 0.08)]), cap_paint, depth=0.07)
    _badge(c, look, form, ground)
    _laces(c, look, form, tongue)
    _sole(c, look, form, ground)


def _sole(c: Canvas, look: Appearance, form: np.random.Generator, ground: float) -> None:
    floor, wedge = 0.46, form.uniform(0.0, 0.07)
    c.fill(box(-0.80, floor - 0.06, 0.76, floor + 0.035, 0.05), RUBBER, depth=0.02)
    edge = Paint(WHITE if form.random() < 0.65 else look.trim, gloss=0.1)
    top = [(-0.86, ground - wedge), (-0.4, ground + 0.02 - wedge), (0.1, ground + 0.05)]
    top += [(0.55, ground + 0.03), (0.86, ground - 0.04), (0.90, ground + 0.05)]
    base = [(0.78, floor - 0.01), (0.4, floor + 0.01), (-0.3, floor + 0.01), (-0.80, floor - 0.01)]
    c.fill(smooth([*top, *base, (-0.89, ground + 0.06)]), edge, depth=0.06, cast=0.35)
    line = Paint(look.trim if form.random() < 0.6 else mix(edge.colour, INK, 0.25))
    y = (ground + floor) / 2 + 0.04
    c.line(path((-0.83, y - 0.02), (0.1, y + 0.02), (0.82, y - 0.02)), 0.018, line, "flat")


def _badge(c: Canvas, look: Appearance, form: np.random.Generator, ground: float) -> None:
    ink, kind = look.second(), int(form.integers(4))
    if kind == 0:
        for n in range(3):
            x = -0.22 + n * 0.14
            c.line(path((x, ground - 0.02), (x + 0.16, -0.16 + n * 0.02)), 0.06, ink, "flat")
    elif kind == 1:
        c.fill(smooth([(-0.45, 0.12), (-0.2, 0.22), (0.28, -0.06), (-0.15, 0.08)]), ink, "flat")
    elif kind == 2:
        c.fill(ellipse(-0.30, 0.06, 0.11), ink, "flat")
    else:
        c.line(path((-0.42, 0.16), (-0.2, -0.10), (-0.06, 0.16), (0.12, -0.08)), 0.05, ink, "flat")


def _laces(c: Canvas, look: Appearance, form: np.random.Generator, tongue: float) -> None:
    lace = Paint(WHITE if form.random() < 0.6 else look.trim)
    stay = [(-0.08, tongue + 0.06), (0.32, -0.07), (0.22, 0.03), (-0.20, tongue + 0.17)]
    c.fill(np.asarray(stay), look.plain(0.8), depth=0.02)
    for share in np.linspace(0.08, 0.92, int(form.integers(4, 7))):
        x, y = -0.08 + 0.40 * share, tongue + 0.06 + (-0.13 - tongue) * share
        c.line(path((x + 0.02, y), (x - 0.10, y + 0.10)), 0.036, lace, cast=0.3)
