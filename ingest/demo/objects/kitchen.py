"""Draws tableware and plants: mugs, teapots, bottles, plant pots."""

from __future__ import annotations

import numpy as np

from ingest.demo.canvas import Canvas
from ingest.demo.geometry import ellipse, lathe, moved, path, smooth, turn
from ingest.demo.look import METAL, Appearance
from ingest.demo.paint import WHITE, Paint, mix


def mug(c: Canvas, look: Appearance) -> None:
    """A cup with a handle on the right."""
    form = look.form()
    top, low = form.uniform(0.42, 0.56), form.uniform(0.66, 1.0)
    tall, belly = form.uniform(0.48, 0.66), form.uniform(-0.05, 0.08)
    low *= top
    middle = (top + low) / 2 + belly
    reach, thick = form.uniform(0.27, 0.40), form.uniform(0.085, 0.14)
    hang = form.uniform(0.28, 0.40)
    power = form.choice([2.0, 2.0, 3.4])
    handle = ellipse(middle - 0.06, 0.02, reach + 0.06, hang, -92, 92, power)
    c.line(handle, thick, look.second(1.0, 0.5) if form.random() < 0.3 else look.plain())
    c.fill(lathe([(-tall, top), (0.05, middle), (tall, low)], 0.16), look.paint, "turned")
    c.tone(ellipse(0, tall + 0.08, low, 0.10), -0.35, 0.06)
    inside = Paint(mix(look.trim if form.random() < 0.5 else WHITE, (0.3, 0.3, 0.3), 0.12))
    c.fill(ellipse(0, -tall, top, top * 0.165), look.plain(1.12), "flat")
    c.fill(ellipse(0, -tall, top - 0.035, top * 0.165 - 0.022), inside, "flat")
    c.tone(ellipse(-top * 0.6, -tall, top * 0.7, 0.09), -0.55, 0.06)
    if form.random() < 0.5:
        drink = Paint((0.25, 0.14, 0.08) if form.random() < 0.6 else (0.62, 0.33, 0.10), gloss=0.4)
        c.fill(ellipse(0, -tall + 0.035, top - 0.06, top * 0.12), drink, "flat")


def teapot(c: Canvas, look: Appearance) -> None:
    """A round pot with a spout on the left and a handle on the right."""
    form = look.form()
    wide, tall = form.uniform(0.46, 0.56), form.uniform(0.34, 0.48)
    mouth, foot = form.uniform(0.20, 0.28), form.uniform(0.26, 0.36)
    lift = form.uniform(-0.50, -0.32)
    if form.random() < 0.3:
        hoop = ellipse(0, -tall + 0.05, wide * 0.85, form.uniform(0.42, 0.52), 180, 360, 2.4)
        c.line(hoop, 0.06, look.second(0.9, 0.3))
    else:
        handle = ellipse(wide - 0.10, 0.0, 0.40, tall * 0.80, -85, 85, form.choice([2.0, 3.0]))
        c.line(handle, form.uniform(0.075, 0.11), look.plain())
    spout = [(-wide + 0.12, 0.22), (-wide - 0.14, 0.06), (-wide - 0.24, lift + 0.12)]
    spout += [(-wide - 0.36, lift), (-wide - 0.24, lift - 0.03), (-wide - 0.13, lift + 0.14)]
    c.fill(smooth([*spout, (-wide + 0.14, -0.12)]), look.plain(), depth=0.07)
    body = [(-tall, mouth), (-tall * 0.5, wide * 0.86), (0.05, wide), (tall, foot)]
    c.fill(lathe(body, 0.14), look.paint, "turned", cast=0.3)
    c.tone(ellipse(0, tall + 0.06, foot * 1.3, 0.09), -0.35, 0.06)
    lid = form.uniform(0.10, 0.20)
    cover = [(-tall - lid, 0.03), (-tall - lid * 0.7, mouth * 0.7), (-tall, mouth + 0.03)]
    c.fill(lathe(cover, 0.15), look.plain(1.06), "turned", cast=0.35)
    knob = form.uniform(0.05, 0.085)
    c.fill(ellipse(0, -tall - lid - knob * 0.7, knob), look.second(1.0, 0.5), depth=0.05)


def bottle(c: Canvas, look: Appearance) -> None:
    """A drinking bottle with a cap."""
    form = look.form()
    wide, neck = form.uniform(0.20, 0.32), form.uniform(0.09, 0.16)
    tall, shoulder = form.uniform(0.72, 0.84), form.uniform(-0.50, -0.30)
    top, soft = -tall + 0.16, form.uniform(0.10, 0.25)
    side = [(top, neck), (shoulder - soft * 0.7, neck + 0.01), (shoulder + 0.06, wide)]
    c.fill(lathe([*side, (0.2, wide), (tall, wide * 0.96)], 0.12), look.paint, "turned")
    c.tone(ellipse(0, tall + 0.03, wide, 0.07), -0.4, 0.05)
    ring = form.uniform(0.5, 0.75)
    if form.random() < 0.6:
        base = lathe([(ring, wide * 0.995), (tall, wide * 0.96)], 0.12)
        c.fill(base, METAL if form.random() < 0.5 else look.second(), "turned")
    cap, high = neck + form.uniform(0.01, 0.04), form.uniform(0.14, 0.22)
    if form.random() < 0.5:
        c.line(ellipse(0, top - high, cap * 0.8, 0.13, 180, 360), 0.045, look.second(0.9))
    lid = Paint((0.70, 0.50, 0.30), texture="wood") if form.random() < 0.3 else look.second()
    c.fill(lathe([(top - high, cap * 0.94), (top + 0.02, cap)], 0.14), lid, "turned", cast=0.4)
    c.fill(ellipse(0, top - high, cap * 0.94, cap * 0.14), lid, "flat")


def plant_pot(c: Canvas, look: Appearance) -> None:
    """A pot with a plant: blades, round leaves, a palm or a cactus."""
    form = look.form()
    top, low = form.uniform(0.34, 0.46), form.uniform(0.62, 0.98)
    rim = form.uniform(0.0, 0.12)
    plants = (_blades, _round_leaves, _palm, _cactus)
    bottom = 0.80
    mouth = bottom - form.uniform(0.50, 0.72)
    c.fill(ellipse(0, mouth, top, top * 0.16), Paint((0.20, 0.14, 0.10), texture="leather"), "flat")
    plants[int(form.integers(4))](c, form, mouth)
    half_rim = ellipse(0, mouth, top, top * 0.16, 0, 180)
    belly = (top + top * low) / 2 + form.uniform(-0.02, 0.07)
    body = lathe([(mouth, top), ((mouth + bottom) / 2, belly), (bottom, top * low)], 0.16)
    # The pot's front rim covers the plant's stem, so the pot is drawn up to that rim.
    front = np.concatenate([body[:-57], half_rim[::-1]])
    c.fill(front, look.paint, "turned", cast=0.3)
    c.tone(ellipse(0, bottom + 0.05, top * low, 0.10), -0.4, 0.06)
    if rim > 0.05:
        over = np.concatenate([half_rim * (1.05, 1), (half_rim * (1.05, 1) + (0, rim))[::-1]])
        c.fill(over, look.plain(1.06), "turned", cast=0.35)


def _green(form: np.random.Generator) -> Paint:
    shade = form.uniform(0, 1)
    return Paint(mix((0.16, 0.40, 0.20), (0.42, 0.60, 0.25), shade), gloss=0.2)


def _blades(c: Canvas, form: np.random.Generator, mouth: float) -> None:
    for lean in form.permutation(np.linspace(-24, 24, int(form.integers(6, 10)))).tolist():
        tall, wide = form.uniform(0.62, 0.95), form.uniform(0.05, 0.085)
        foot = (lean / 130, mouth)
        side = [(-wide * 0.6, 0.05), (-wide, -tall * 0.5), (0, -tall), (wide, -tall * 0.45)]
        c.fill(turn(moved(smooth(side), *foot), lean, foot), _green(form), depth=0.035, cast=0.3)
        vein = moved(path((0, 0), (0, -tall * 0.9)), *foot)
        c.crease(turn(vein, lean, foot), 0.012, 0.25)


def _round_leaves(c: Canvas, form: np.random.Generator, mouth: float) -> None:
    for angle in form.permutation(np.linspace(-165, -15, int(form.integers(9, 15)))):
        far, size = form.uniform(0.32, 0.80), form.uniform(0.10, 0.17)
        x = 0.85 * far * np.cos(np.radians(angle))
        y = mouth - 0.08 + far * np.sin(np.radians(angle))
        stem = smooth([(0, mouth), (x * 0.35, (mouth + y) / 2 - 0.05), (x, y)], closed=False)
        c.line(stem, 0.022, Paint((0.30, 0.45, 0.20)))
        c.fill(
            ellipse(x, y, size, size * form.uniform(0.7, 1.0)), _green(form), depth=0.05, cast=0.35
        )
        c.crease(path((x, y), (x + size * 0.8 * np.sign(x), y)), 0.012, 0.25)


def _palm(c: Canvas, form: np.random.Generator, mouth: float) -> None:
    for angle in form.permutation(np.linspace(-62, 62, int(form.integers(6, 9)))):
        tall = form.uniform(0.70, 0.95)
        bend = float(np.sin(np.radians(angle)))
        tip = (bend * tall, mouth - tall * np.cos(np.radians(angle)) * 0.95 - 0.05)
        rib = smooth(
            [(0, mouth), (tip[0] * 0.35, mouth + (tip[1] - mouth) * 0.65), tip], closed=False
        )
        green = _green(form)
        c.line(rib, 0.02, green)
        for n in range(4, len(rib), 1):
            spread = 0.26 * np.sin(np.pi * (n / len(rib)) ** 0.8) + 0.05
            for side in (-1, 1):
                end = rib[n] + np.array([side * spread * 0.8, 0.16 * spread / 0.3 - 0.04])
                c.line(np.stack([rib[n], end]), 0.026, green, "flat")


def _cactus(c: Canvas, form: np.random.Generator, mouth: float) -> None:
    tall, wide, green = form.uniform(0.55, 0.85), form.uniform(0.13, 0.20), _green(form)
    for side in (-1, 1):
        lift, reach = form.uniform(0.15, 0.35), wide + form.uniform(0.10, 0.2)
        arm = [(0, mouth - lift), (side * reach, mouth - lift - 0.03)]
        arm += [(side * reach * 1.05, mouth - lift - form.uniform(0.16, 0.3))]
        c.line(smooth(arm, closed=False), wide * 0.85, green)
    trunk = ellipse(0, mouth - tall / 2 + 0.05, wide, tall / 2 + 0.05, power=3.2)
    c.fill(trunk, green, "turned", cast=0.3)
    for x in np.linspace(-0.75, 0.75, 6):
        c.crease(path((x * wide, mouth), (x * wide, mouth - tall * 0.92)), 0.012, -0.35, 0.006)
    if form.random() < 0.6:
        bloom = Paint((0.92, 0.38, 0.52))
        for angle in range(-150, 0, 30):
            petal = turn(ellipse(0.06, 0, 0.06, 0.028), angle)
            c.fill(moved(petal, 0, mouth - tall), bloom, depth=0.02)
