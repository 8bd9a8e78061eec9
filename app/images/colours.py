"""The visible colours of what a picture shows: shares of basic colour names.

The pixels are named by the nearest of some shades in CIELAB. What belongs to the product is told
from the surroundings by colour: clusters of the middle against clusters of the edge, and the
distance from the middle. Where too little is left, all pixels count, those in the middle more.
Reasons and figures: `docs/decisions/0069-colours-of-pictures.md`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.errors import BadImage
from app.images.basic_colours import NAMES, SHADES, VERSION
from app.images.decoding import decode
from app.types import Colours

Pixels = NDArray[np.uint8]
Plane = NDArray[np.floating[Any]]
Shares = NDArray[np.float32]
"""How much of each of NAMES a picture shows: (18,), 0 to 1, in all 1."""

SIDE = 32
"""Pixels are averaged to a square of this side."""

CLUSTERS = 4
ROUNDS = 2
"""Of k-means, for the middle and for the edge."""

LIGHTNESS = 0.6
"""Weight of lightness against hue and chroma where product and surroundings are told apart, low
because of shadows; NAMING_LIGHTNESS where a colour is named."""
NAMING_LIGHTNESS = 0.7

SOFTNESS = 8.0
NAMING_SOFTNESS = 6.0
"""Distances in CIELAB by which one cluster, or one name, becomes e times as likely."""

MIDDLE, MIDDLE_WEIGHT = 0.75, 1.6
"""A pixel at this distance from the middle (1: the edge) is as likely inside as outside."""

SURE = 0.8
LEAST = 20
"""Pixels count from this likelihood on, if there are at least so many."""

SATURATED = {
    "blue": ((0, 0, 255), (20, 20, 200)),
    "navy": ((0, 0, 128), (10, 10, 100)),
}
"""Further shades, of drawn pictures: by SHADES alone this blue is purple, and this navy blue."""

BITS = 5
"""Of each channel in the table of names by colour."""

TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], np.float32
)
WHITE = np.array([0.9505, 1.0, 1.089], np.float32)


def colours_of_thumbnail(thumbnail: bytes) -> Colours:
    """The colours of a stored picture by its thumbnail (JPEG); not known if that is damaged.

    Ingests take the thumbnail too, so that pictures loaded before have the same colours.
    """
    try:
        shares = visible_colours(decode(thumbnail, at_least=SIDE))
    except BadImage:
        return Colours(bytes(len(NAMES)), VERSION)
    return Colours(np.asarray(shares * 255 + 0.5, np.uint8).tobytes(), VERSION)


def visible_colours(picture: Image.Image) -> Shares:
    """The colours of what an RGB picture of any size shows; the same picture gives the same."""
    small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX))
    names, lab = (table[_places(small)] for table in _tables())
    weights = _product(lab)
    return np.asarray(weights @ names / weights.sum(), np.float32)


def _product(lab: Plane) -> Plane:
    """How much each pixel, (n, 3) in CIELAB, counts: (n,)."""
    radius, edge = _grid()
    scaled = lab * np.array([LIGHTNESS, 1, 1], np.float32)
    near = _distance(scaled, _clusters(scaled[radius < 0.45]))
    far = _distance(scaled, _clusters(scaled[edge]))
    likely = (far - near) / SOFTNESS + (MIDDLE - radius) * MIDDLE_WEIGHT
    sure = likely > np.log(SURE / (1 - SURE))
    return np.asarray(sure if sure.sum() >= LEAST else np.exp(-2 * radius**2), np.float32)


def _clusters(points: Plane) -> Plane:
    """Centres of k-means, (CLUSTERS, 3), which begins at points evenly spaced by lightness."""
    order = np.argsort(points[:, 0], kind="stable")
    begin = (2 * np.arange(CLUSTERS) + 1) * len(points) // (2 * CLUSTERS)
    centres = points[order[begin]]
    for _ in range(ROUNDS):
        nearest = _squares(points, centres).argmin(1)
        member = (nearest == np.arange(CLUSTERS)[:, None]).astype(np.float32)
        count = member.sum(1, keepdims=True)
        centres = np.where(count > 0, member @ points / np.maximum(count, 1), centres)
    return centres


def _squares(points: Plane, centres: Plane) -> Plane:
    """Squared distances, (points, centres)."""
    return np.asarray(
        (points**2).sum(1, keepdims=True) - 2 * points @ centres.T + (centres**2).sum(1)
    )


def _distance(points: Plane, centres: Plane) -> Plane:
    return np.asarray(np.sqrt(np.maximum(_squares(points, centres).min(1), 0)))


@cache
def _grid() -> tuple[Plane, NDArray[np.bool_]]:
    """The distance of each pixel from the middle (1: the edge), and whether it is at the edge."""
    at = (np.arange(SIDE, dtype=np.float32) + 0.5) * 2 / SIDE - 1
    edge = np.ones((SIDE, SIDE), bool)
    edge[2:-2, 2:-2] = False
    return np.hypot(at[:, None], at[None, :]).ravel(), edge.ravel()


def _places(pixels: Pixels) -> NDArray[np.int32]:
    """The place of each pixel's colour in `_tables`, (n,)."""
    levels = (pixels.reshape(-1, 3) >> (8 - BITS)).astype(np.int32)
    return levels[:, 0] << 2 * BITS | levels[:, 1] << BITS | levels[:, 2]


@cache
def _tables() -> tuple[Plane, Plane]:
    """How likely each name is for each colour of BITS a channel, and these colours in CIELAB."""
    levels = np.arange(2**BITS, dtype=np.uint8) << (8 - BITS) | 1 << (7 - BITS)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    lab = to_lab(grid)
    scale = np.array([NAMING_LIGHTNESS, 1, 1], np.float32)
    nearest = np.stack(
        [
            _distance(lab * scale, to_lab(np.array(shades, np.uint8)) * scale)
            for shades in (SHADES[name] + SATURATED.get(name, ()) for name in NAMES)
        ],
        1,
    )
    likely = np.exp((nearest.min(1, keepdims=True) - nearest) / NAMING_SOFTNESS)
    return np.asarray(likely / likely.sum(1, keepdims=True), np.float32), lab.astype(np.float32)


def to_lab(rgb: Pixels) -> Plane:
    """sRGB, uint8 (..., 3), to CIELAB under D65."""
    value = rgb.astype(np.float32) / 255
    linear = np.where(value > 0.04045, ((value + 0.055) / 1.055) ** 2.4, value / 12.92)
    xyz = linear @ TO_XYZ.T / WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)
