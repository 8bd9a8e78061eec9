"""Photos of goods in other colours and patterns, from which the looks are learned.

The product is told from its surroundings by colour: clusters of the middle against clusters of the
edge, and the distance from the middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from app.images.basic_colours import SHADES
from app.images.colours import TO_XYZ, WHITE, to_lab

Pixels = NDArray[np.uint8]
Plane = NDArray[np.floating[Any]]

COLOURS = SHADES
"""Shades in sRGB by the colour that they are called."""

PATTERNS = ("striped", "checked", "dotted", "floral")

SHADE_NOISE = 5.0
"""Standard deviation of a shade in CIELAB; a quarter of it for those without a hue."""

_FROM_XYZ = np.linalg.inv(TO_XYZ)


@dataclass(frozen=True, slots=True)
class Cutout:
    """A square photo in sRGB and in CIELAB, (side, side, 3), and how far each pixel belongs to the
    product, (side, side), 0 to 1."""

    photo: Pixels
    lab: Plane
    mask: Plane

    def recoloured(self, colour: Plane) -> Pixels:
        """The product in a colour of CIELAB, with its own shading."""
        lab = self.lab
        mean = (lab * self.mask[..., None]).sum((0, 1)) / (self.mask.sum() + 1e-6)
        shading = 0.8 if 20 < colour[0] < 85 else 0.45
        light = np.clip(colour[0] + shading * (lab[..., 0] - mean[0]), 2, 99)
        saturation = np.clip(light / max(float(colour[0]), 8.0), 0.4, 1.25)[..., None]
        chroma = colour[1:] * saturation + 0.15 * (lab[..., 1:] - mean[1:])
        return self._blend(to_rgb(np.concatenate([light[..., None], chroma], 2)), self.photo)

    def patterned(self, pattern: str, rng: np.random.Generator) -> Pixels:
        """The product in two colours with a drawn pattern."""
        first, second = _two_colours(rng)
        share = _pattern(pattern, len(self.mask), rng)[..., None]
        mixed = self.recoloured(first) * (1 - share) + self.recoloured(second) * share
        return np.asarray(mixed + 0.5, np.uint8)

    def in_studio(self, photo: Pixels, rng: np.random.Generator) -> Pixels:
        """The product of a photo of this one, before a light background."""
        return self._blend(photo, np.full_like(photo, rng.integers(235, 256)))

    def _blend(self, product: Pixels, surroundings: Pixels) -> Pixels:
        share = self.mask[..., None]
        return np.asarray(product * share + surroundings * (1 - share) + 0.5, np.uint8)


def shade(colour: str, rng: np.random.Generator) -> Plane:
    """A shade of a colour in CIELAB."""
    shades = COLOURS[colour]
    noise = SHADE_NOISE * (0.25 if colour in ("white", "grey", "black") else 1.0)
    lab = to_lab(np.array(shades[rng.integers(len(shades))], np.uint8)[None])[0]
    return np.asarray(lab + rng.normal(0, noise, 3), np.float32)


def _two_colours(rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Two shades that differ; in half of the cases one is white."""
    names = list(COLOURS)
    while True:
        first = shade("white" if rng.random() < 0.5 else names[rng.integers(len(names))], rng)
        second = shade(names[rng.integers(len(names))], rng)
        if np.linalg.norm(first - second) > 35:
            return first, second


def _pattern(pattern: str, side: int, rng: np.random.Generator) -> Plane:
    """How much of the second colour each pixel has: (side, side), 0 to 1."""
    down, across = np.mgrid[0:side, 0:side].astype(np.float32)
    angle = rng.choice([0.0, 0.0, np.pi / 2]) + rng.normal(0, 0.06)
    period = rng.uniform(14, 40)
    u = across * np.cos(angle) + down * np.sin(angle) + rng.uniform(0, 50) + 3 * np.sin(down / 37)
    v = down * np.cos(angle) - across * np.sin(angle) + rng.uniform(0, 50) + 3 * np.sin(across / 41)
    if pattern == "striped":
        return _edge(np.sin(v / period * 2 * np.pi) + rng.uniform(-0.4, 0.4))
    if pattern == "checked":
        first, second = (_edge(np.sin(each / period * 2 * np.pi)) for each in (u, v))
        return np.asarray(first / 2 + second / 2)
    if pattern == "dotted":
        column, row = u / period, v / period + 0.5 * np.floor(u / period)
        return _edge(6 * (rng.uniform(0.25, 0.33) - np.hypot(column % 1 - 0.5, row % 1 - 0.5)))
    flowers = np.zeros((side, side))
    for _ in range(int(rng.integers(40, 90))):
        x, y, size, turn = *rng.uniform(0, side, 2), rng.uniform(6, 18), rng.uniform(0, 6)
        petals = 0.65 + 0.35 * np.cos(5 * np.arctan2(down - y, across - x) + turn)
        flowers = np.maximum(flowers, _edge(2 - 2 * np.hypot(across - x, down - y) / size / petals))
    return flowers


def _edge(values: Plane) -> Plane:
    return np.asarray(1 / (1 + np.exp(np.clip(-6 * values, -50, 50))))


def cut_out(photo: Pixels, rng: np.random.Generator) -> Cutout:
    """The product of a square photo, which is expected in the middle."""
    step = 4
    lab = to_lab(photo[::step, ::step])
    side = len(lab)
    at = (np.arange(side) + 0.5) * 2 / side - 1
    radius = np.hypot(at[:, None], at[None, :])
    edge = np.ones((side, side), bool)
    edge[4:-4, 4:-4] = False
    surroundings = clusters(lab[edge], 4, rng)
    product = clusters(lab[radius < 0.45], 4, rng)
    for _ in range(3):
        mask = _mask(lab, product, surroundings, radius)
        if (mask > 0.6).sum() >= 100:
            product = clusters(lab[mask > 0.6], 4, rng)
        if (mask < 0.3).sum() >= 100:
            surroundings = clusters(lab[mask < 0.3], 5, rng)
    mask = _enlarged(np.clip((mask - 0.5) * 4 + 0.5, 0, 1), len(photo))
    return Cutout(photo, to_lab(photo), mask)


def _mask(lab: Plane, product: Plane, surroundings: Plane, radius: Plane) -> Plane:
    far, near = _distance(lab, surroundings), _distance(lab, product)
    likely = 1 / (1 + np.exp(-((far - near) / 8 + (0.75 - radius) * 1.6)))
    picture = Image.fromarray(np.asarray(likely * 255, np.uint8))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(1.5)), np.float32) / 255


def _enlarged(mask: Plane, side: int) -> Plane:
    picture = Image.fromarray(np.asarray(mask * 255, np.uint8))
    picture = picture.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(1.2)), np.float32) / 255


def _distance(lab: Plane, centres: Plane) -> Plane:
    """The distance of each pixel to the nearest centre; lightness counts less, for shadows."""
    weights = np.array([0.6, 1, 1])
    differences = (lab[..., None, :] - centres) * weights
    return np.asarray(np.sqrt((differences**2).sum(-1).min(-1)))


def clusters(points: Plane, count: int, rng: np.random.Generator, rounds: int = 8) -> Plane:
    """Centres of k-means, (count, channels)."""
    centres = points[rng.choice(len(points), count, replace=len(points) < count)]
    for _ in range(rounds):
        nearest = ((points[:, None] - centres) ** 2).sum(-1).argmin(1)
        centres = np.stack(
            [
                points[nearest == each].mean(0) if (nearest == each).any() else centres[each]
                for each in range(count)
            ]
        )
    return centres


def shown_colours(cutout: Cutout, rng: np.random.Generator) -> Plane:
    """How much of each of COLOURS the product has: (colours,), in all 1."""
    inside = cutout.lab[cutout.mask > 0.8]
    points = (inside if len(inside) > 200 else cutout.lab.reshape(-1, 3))[::17]
    centres = clusters(points, 4, rng, rounds=5)
    nearest = ((points[:, None] - centres) ** 2).sum(-1).argmin(1)
    shares = np.bincount(nearest, minlength=4) / len(points)
    return np.asarray(shares @ np.stack([_called(centre) for centre in centres]))


def _called(lab: Plane) -> Plane:
    """How likely each of COLOURS is the name of a colour in CIELAB: (colours,), in all 1."""
    weights = np.array([0.7, 1, 1])
    nearest = np.array(
        [
            np.linalg.norm((to_lab(np.array(shades, np.uint8)) - lab) * weights, axis=1).min()
            for shades in COLOURS.values()
        ]
    )
    likely = np.exp(-(nearest - nearest.min()) / 6)
    return np.asarray(likely / likely.sum())


def to_rgb(lab: Plane) -> Pixels:
    """CIELAB to sRGB, uint8; what it cannot show is clipped."""
    y = (lab[..., 0] + 16) / 116
    f = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], -1)
    xyz = np.where(f > 0.2069, f**3, (f - 16 / 116) / 7.787) * WHITE
    linear = np.clip(xyz @ _FROM_XYZ.T, 0, 1)
    value = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    return np.asarray(np.clip(value * 255 + 0.5, 0, 255), np.uint8)
