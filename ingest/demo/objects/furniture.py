"""Draws furniture: chairs, lamps, clocks."""

from __future__ import annotations

import numpy as np

from ingest.demo.canvas import Canvas
from ingest.demo.geometry import box, disc, ellipse, lathe, moved, path, smooth
from ingest.demo.look import BLACK, METAL, Appearance
from ingest.demo.paint import BRASS, INK, OAK, WALNUT, WHITE, Paint, mix


def _timber(form: np.random.Generator) -> Paint:
    return Paint(mix(WALNUT, OAK, form.uniform(0, 1.2)), gloss=0.12, texture="wood")


def chair(c: Canvas, look: Appearance) -> None:
    """A chair seen a little from the side: a wooden one, or a shell on legs."""
    form = look.form()
    (_shell_chair if form.random() < 0.4 else _wooden_chair)(c, look, form)


def _wooden_chair(c: Canvas, look: Appearance, form: np.random.Generator) -> None:
    wood = _timber(form) if form.random() < 0.6 else look.plain()
    top, seat, wide = form.uniform(-0.86, -0.66), form.uniform(0.05, 0.16), form.uniform(0.34, 0.42)
    thick, back = form.uniform(0.055, 0.085), form.uniform(0.04, 0.10)
    for x in (-wide + back, wide - back * 0.2):
        c.line(path((x, seat - 0.10), (x * 1.02, 0.70)), thick * 0.9, wood)
    c.line(path((-wide + back, 0.42), (wide, 0.42)), thick * 0.6, wood)
    bow = form.uniform(0.0, 0.08)
    for share in np.linspace(0.0, 1.0, int(form.integers(3, 8)))[1:-1]:
        x = -wide + back + share * (2 * wide - back)
        c.line(path((x, top + 0.06), (x, seat - 0.10)), thick * 0.5, wood, cast=0.2)
    for n in range(int(form.integers(1, 4))):
        y = top + 0.05 + n * form.uniform(0.13, 0.22)
        rail = [(-wide + back, y), (0, y - bow), (wide, y)]
        c.line(smooth(rail, closed=False), thick * (1.9 if n == 0 else 1.2), wood, cast=0.3)
    for x in (-wide + back, wide):
        c.line(path((x, top), (x, seat - 0.05)), thick, wood, cast=0.2)
    _seat(
        c,
        look if form.random() < 0.75 else None,
        wood,
        (wide, seat, thick, form.uniform(0.1, 0.16)),
    )
    for x in (-wide - 0.09, wide + 0.03):
        c.line(path((x, seat + 0.16), (x * 1.03, 0.86)), thick, wood, cast=0.3)


def _seat(
    c: Canvas, cushion: Appearance | None, wood: Paint, size: tuple[float, float, float, float]
) -> None:
    wide, y, thick, deep = size
    plane = path((-wide + 0.02, y - 0.11), (wide + 0.03, y - 0.11), (wide + 0.09, y + deep))
    plane = np.concatenate([plane, path((-wide - 0.14, y + deep))])
    c.fill(moved(plane, 0, thick), wood, "flat", cast=0.3)
    c.tone(box(-wide - 0.2, y + deep, wide + 0.2, y + deep + thick), -0.3, 0.01)
    c.fill(plane, wood, "flat")
    if cushion is not None:
        puff = smooth(plane * (0.95, 1) + (0, -0.035), steps=2)
        c.fill(np.concatenate([puff, puff[:1]]), cushion.paint, depth=0.05, cast=0.3)


def _shell_chair(c: Canvas, look: Appearance, form: np.random.Generator) -> None:
    legs = METAL if form.random() < 0.4 else _timber(form)
    thick, spread = form.uniform(0.04, 0.07), form.uniform(0.34, 0.48)
    wide, top = form.uniform(0.42, 0.54), form.uniform(-0.80, -0.58)
    for x, foot in ((-0.20, 0.72), (0.24, 0.72)):
        c.line(path((x, 0.22), (x + np.sign(x) * spread * 0.45, foot)), thick * 0.9, legs)
    for x in (-0.26, 0.28):
        c.line(path((x, 0.26), (np.sign(x) * spread, 0.86)), thick, legs, cast=0.2)
    arm = form.uniform(-0.20, 0.02)
    back = [(0, top), (wide * 0.72, top + 0.07), (wide * 0.86, arm - 0.12), (wide, arm)]
    back += [(wide * 0.96, 0.16), (0.2, 0.30), (-0.2, 0.30), (-wide * 0.96, 0.16), (-wide, arm)]
    c.fill(
        smooth([*back, (-wide * 0.86, arm - 0.12), (-wide * 0.72, top + 0.07)]),
        look.paint,
        depth=0.10,
    )
    c.tone(ellipse(0, 0.00, wide * 0.75, 0.10), -0.4, 0.07)
    seat = smooth(
        [
            (-wide * 0.86, 0.10),
            (0, 0.02),
            (wide * 0.86, 0.10),
            (wide * 0.8, 0.25),
            (0, 0.34),
            (-wide * 0.8, 0.25),
        ]
    )
    c.fill(seat, look.plain(1.06), depth=0.07)


def lamp(c: Canvas, look: Appearance) -> None:
    """A lit lamp: a shade on a turned foot, or a jointed arm with a cone."""
    form = look.form()
    (_desk_lamp if form.random() < 0.4 else _table_lamp)(c, look, form)


def _table_lamp(c: Canvas, look: Appearance, form: np.random.Generator) -> None:
    foot = [look.second(1.0, 0.6), Paint(BRASS, gloss=0.8), _timber(form), BLACK][
        int(form.integers(4))
    ]
    split, low = form.uniform(-0.10, 0.12), form.uniform(0.20, 0.30)
    c.line(path((0, split - 0.1), (0, 0.7)), 0.05, Paint(BRASS, gloss=0.6))
    bulge, waist = form.uniform(0.05, 0.34), form.uniform(0.05, 0.10)
    body = [(split, waist), ((split + 0.8) / 2, bulge), (0.74, waist * 1.2)]
    c.fill(lathe([*body, (0.80, low)], 0.14), foot, "turned")
    wide, narrow = form.uniform(0.42, 0.56), form.uniform(0.35, 0.95)
    cone = lathe([(-0.80, wide * narrow), (split, wide)], 0.10, sharp=True)
    c.fill(cone, look.paint, "turned", cast=0.3)
    c.tone(ellipse(0, (split - 0.8) / 2 + 0.12, wide * 0.55, 0.30), 0.42, 0.16)
    inner = Paint(mix(look.paint.colour, (1.0, 0.93, 0.72), 0.75))
    c.fill(ellipse(0, -0.80, wide * narrow * 0.96, wide * narrow * 0.09), inner, "flat")


def _desk_lamp(c: Canvas, look: Appearance, form: np.random.Generator) -> None:
    arm = METAL if form.random() < 0.5 else look.second(1.0, 0.4)
    knee = (form.uniform(0.20, 0.42), form.uniform(-0.12, 0.12))
    head = (form.uniform(-0.18, 0.02), form.uniform(-0.72, -0.55))
    thick = form.uniform(0.035, 0.06)
    c.fill(
        moved(lathe([(0.72, 0.30), (0.80, 0.32)], 0.16, sharp=True), 0.05, 0),
        look.plain(0.9),
        "turned",
    )
    c.fill(ellipse(0.05, 0.72, 0.30, 0.048), look.plain(), "flat")
    c.line(path((0.05, 0.70), knee), thick, arm)
    c.line(path(knee, head), thick, arm)
    for joint in (knee, head):
        c.fill(ellipse(*joint, thick * 1.1), BLACK, depth=0.03)
    size, lean = form.uniform(0.26, 0.36), form.uniform(0.5, 0.9)
    axis = np.array([-0.75, lean]) / np.hypot(0.75, lean)
    side = np.array([-axis[1], axis[0]])
    near, far = np.asarray(head) - 0.06 * axis, np.asarray(head) + size * 1.25 * axis
    mouth = np.outer(np.cos(np.linspace(0, 6.3, 48)), side) * size
    mouth += np.outer(np.sin(np.linspace(0, 6.3, 48)), axis) * size * 0.32 + far
    cone = [near - 0.08 * side, far - 0.62 * size * axis - 0.72 * size * side, far - size * side]
    cone += [far + size * side, far - 0.62 * size * axis + 0.72 * size * side, near + 0.08 * side]
    c.fill(np.stack(cone), look.paint, depth=0.10, cast=0.3)
    c.fill(mouth, Paint((1.0, 0.92, 0.68)), "flat")
    c.fill(disc(far - 0.02 * axis, size * 0.34), Paint((1.0, 0.99, 0.93)), "flat")


def clock(c: Canvas, look: Appearance) -> None:
    """A wall clock, round or square."""
    form = look.form()
    size, rim = form.uniform(0.62, 0.78), form.uniform(0.05, 0.12)
    power = form.choice([2.0, 2.0, 2.0, 6.0])
    frame = [look.plain(), look.second(1, 0.4), _timber(form), METAL][int(form.integers(4))]
    pale = form.random() < 0.45
    dial = Paint(mix(look.paint.colour, WHITE, 0.85)) if pale else look.paint
    bright = sum(dial.colour) > 1.5
    mark = Paint(INK if bright else WHITE)
    c.fill(ellipse(0, 0, size, power=power), frame, depth=rim * 0.5)
    inner = size - rim
    c.fill(ellipse(0, 0, inner, power=power), dial, "flat")
    c.tone(ellipse(-inner * 0.15, -inner * 0.95, inner, inner * 0.12, power=2), -0.45, 0.07)
    _ticks(c, form, inner, mark)
    for angle, far, thick in _time(form):
        end = inner * far * np.array([np.sin(angle), -np.cos(angle)])
        c.line(np.stack([-0.12 * end, end]), thick, mark, "flat", cast=0.35)
    hand = Paint(look.trim if form.random() < 0.7 else (0.8, 0.2, 0.15))
    c.fill(ellipse(0, 0, 0.04), hand, depth=0.03, cast=0.3)


def _ticks(c: Canvas, form: np.random.Generator, inner: float, mark: Paint) -> None:
    style, length = int(form.integers(3)), form.uniform(0.06, 0.14)
    for hour in range(12):
        way = np.array([np.sin(hour * np.pi / 6), -np.cos(hour * np.pi / 6)])
        outer = 0.90 * inner * way
        if style == 0 and hour % 3:
            c.fill(disc(outer, 0.018), mark, "flat")
        elif style == 1:
            c.fill(disc(outer * 0.97, 0.034 if hour % 3 == 0 else 0.02), mark, "flat")
        else:
            long = length * (1.3 if hour % 3 == 0 else 0.7)
            c.line(
                np.stack([outer, outer - long * way]),
                0.03 if hour % 3 == 0 else 0.016,
                mark,
                "flat",
            )


def _time(form: np.random.Generator) -> list[tuple[float, float, float]]:
    minutes = form.uniform(0, 720)
    hour, minute = minutes / 720 * 2 * np.pi, (minutes % 60) / 60 * 2 * np.pi
    thick = form.uniform(0.025, 0.05)
    return [(hour, form.uniform(0.42, 0.52), thick * 1.3), (minute, form.uniform(0.66, 0.8), thick)]
