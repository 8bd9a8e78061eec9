"""Drawn pictures: the same ones everywhere, on which a tower is compared with its network."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

_SHAPES = ("ellipse", "rectangle", "polygon", "line")


def drawn(count: int, shape: tuple[int, int], *, first: int = 0) -> NDArray[np.uint8]:
    """Pictures number `first` to `first + count` as uint8 (count, *shape, 3).

    Shapes, slopes and grain in the colours, sizes and sharpness that photos of products have.
    """
    height, width = shape
    return np.stack([_picture(first + number, width, height) for number in range(count)])


def _picture(number: int, width: int, height: int) -> NDArray[np.uint8]:
    # `random.Random` keeps its numbers from version to version, numpy's generator may not.
    chance = random.Random(number)
    canvas = _ground(chance, width, height)
    pen = ImageDraw.Draw(canvas)
    for _ in range(chance.randint(2, 24)):
        _shape(chance, pen, width, height)
    if chance.random() < 0.5:
        canvas = canvas.filter(ImageFilter.GaussianBlur(chance.uniform(0, 4)))
    return _grained(chance, np.asarray(canvas))


def _ground(chance: random.Random, width: int, height: int) -> Image.Image:
    """White as in a catalogue, one colour, or a slope from one to another."""
    if chance.random() < 0.4:
        return Image.new("RGB", (width, height), (255, 255, 255))
    slope = Image.linear_gradient("L").rotate(90 * chance.randint(0, 3)).resize((width, height))
    one, other = (Image.new("RGB", (width, height), _colour(chance)) for _ in range(2))
    return Image.composite(one, other, slope)


def _shape(chance: random.Random, pen: ImageDraw.ImageDraw, width: int, height: int) -> None:
    corners = [(chance.randint(0, width), chance.randint(0, height)) for _ in range(4)]
    (left, right), (top, bottom) = (sorted(side) for side in zip(*corners[:2], strict=True))
    match chance.choice(_SHAPES):
        case "ellipse":
            pen.ellipse((left, top, right, bottom), fill=_colour(chance))
        case "rectangle":
            pen.rectangle((left, top, right, bottom), fill=_colour(chance))
        case "polygon":
            pen.polygon(corners, fill=_colour(chance))
        case _:
            pen.line(corners, fill=_colour(chance), width=chance.randint(1, 9))


def _grained(chance: random.Random, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """With the noise of a camera, up to a tenth of the range."""
    most = chance.randint(0, 25)
    noise = np.frombuffer(chance.randbytes(picture.size), np.uint8).reshape(picture.shape)
    levels = picture.astype(np.int16) + (noise.astype(np.int16) * most // 255 - most // 2)
    return levels.clip(0, 255).astype(np.uint8)


def _colour(chance: random.Random) -> tuple[int, int, int]:
    return chance.randint(0, 255), chance.randint(0, 255), chance.randint(0, 255)
