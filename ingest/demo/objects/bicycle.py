"""Draws a bicycle."""

from __future__ import annotations

import numpy as np

from ingest.demo.canvas import Canvas
from ingest.demo.geometry import Points, disc, moved, path, smooth
from ingest.demo.look import BLACK, METAL, RUBBER, Appearance
from ingest.demo.paint import Paint


def bicycle(c: Canvas, look: Appearance) -> None:
    """A bicycle from the side, facing right."""
    form = look.form()
    radius = form.uniform(0.31, 0.36)
    hub = 0.70 - radius
    back, front = np.array([-0.52, hub]), np.array([0.53, hub])
    crank = np.array([-0.10, hub + 0.04])
    seat = np.array([-0.24 - form.uniform(0, 0.04), form.uniform(-0.30, -0.20)])
    head = np.array([0.36, form.uniform(-0.34, -0.24)])
    low_head, tube = moved(head, 0.04, 0.13), form.uniform(0.032, 0.05)
    step = form.random() < 0.4
    tyre = RUBBER if form.random() < 0.7 else Paint((0.72, 0.55, 0.38))
    for wheel in (back, front):
        _wheel(c, wheel, radius, tyre, form.uniform(0.035, 0.06))
    frame = look.paint
    for a, b in ((back, crank), (back, moved(seat, 0.02, 0.08))):
        c.line(np.stack([a, b]), tube * 0.75, frame)
    bar_end = seat * 0.35 + crank * 0.65 if step else moved(seat, 0.02, 0.06)
    for a, b in ((seat, crank), (bar_end, moved(head, 0.01, 0.03)), (crank, low_head)):
        c.line(np.stack([a, b]), tube, frame, cast=0.2)
    fork = smooth([head, low_head, (low_head + front) / 2 + (-0.01, 0.03), front], closed=False)
    c.line(fork, tube * 0.8, frame)
    _fittings(c, look, form, seat, head, crank)
    if form.random() < 0.4:
        for wheel in (back, front):
            guard = disc(wheel, radius + 0.045, 185 if wheel is back else 200, 330)
            c.line(guard, 0.028, look.second())
    if form.random() < 0.35:
        _basket(c, head)


def _wheel(c: Canvas, hub: Points, radius: float, tyre: Paint, thick: float) -> None:
    for angle in np.linspace(0, np.pi, 10, endpoint=False):
        way = radius * np.array([np.cos(angle), np.sin(angle)])
        c.line(np.stack([hub - way, hub + way]), 0.007, METAL, "flat")
    c.fill(disc(hub, radius), tyre, holes=[disc(hub, radius - thick)], depth=0.02)
    rim = disc(hub, radius - thick)
    c.fill(rim, METAL, holes=[disc(hub, radius - thick - 0.018)], depth=0.01)
    c.fill(disc(hub, 0.03), METAL, depth=0.02)


def _fittings(
    c: Canvas,
    look: Appearance,
    form: np.random.Generator,
    seat: Points,
    head: Points,
    crank: Points,
) -> None:
    leather = Paint((0.45, 0.27, 0.15)) if form.random() < 0.5 else BLACK
    c.line(np.stack([seat, moved(seat, -0.03, -0.12)]), 0.028, METAL)
    x, y = moved(seat, -0.03, -0.13)
    c.fill(
        smooth(
            [
                (x - 0.15, y - 0.03),
                (x + 0.02, y - 0.02),
                (x + 0.16, y - 0.01),
                (x, y + 0.035),
                (x - 0.13, y + 0.05),
            ]
        ),
        leather,
        depth=0.03,
    )
    stem = moved(head, -0.03, -0.12)
    c.line(np.stack([head, stem]), 0.03, METAL)
    if form.random() < 0.45:
        drop = [stem, moved(stem, 0.14, -0.01), moved(stem, 0.19, 0.08), moved(stem, 0.10, 0.15)]
    else:
        drop = [moved(stem, 0.06, 0.0), stem, moved(stem, -0.08, -0.05), moved(stem, -0.18, -0.02)]
    c.line(smooth(drop, closed=False), 0.034, leather)
    c.fill(disc(crank, 0.10), METAL, holes=[disc(crank, 0.075)], depth=0.015)
    c.fill(disc(crank, 0.035), METAL, depth=0.02)
    for way in (np.array([0.13, 0.10]), np.array([-0.13, -0.10])):
        c.line(np.stack([crank, crank + way]), 0.022, METAL)
        c.line(np.stack([crank + way - (0.05, 0), crank + way + (0.05, 0)]), 0.03, BLACK)


def _basket(c: Canvas, head: Points) -> None:
    x, y = moved(head, 0.10, -0.10)
    wicker = Paint((0.68, 0.48, 0.28), (0.42, 0.27, 0.14), "checked", 22)
    c.fill(
        path((x, y), (x + 0.30, y), (x + 0.25, y + 0.21), (x + 0.04, y + 0.21)), wicker, depth=0.03
    )
    c.line(path((x, y), (x + 0.30, y)), 0.03, Paint((0.5, 0.33, 0.18)))
