"""Synthetic pictures, the same on every machine, to compare a compiled model with torch on."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

_SHAPES = ("ellipse", "rectangle", "polygon", "line")


def probe_images(count: int, shape: tuple[int, int], *, first: int = 0) -> NDArray[np.uint8]:
    """Synthetic pictures number `first` to `first + count` as uint8 (count, *shape, 3).

    Shapes, gradients and noise with the colours, sizes and sharpness of product photos.
    """
    height, width = shape
    return np.stack([_picture(first + number, width, height) for number in range(count)])


def _picture(number: int, width: int, height: int) -> NDArray[np.uint8]:
    # `random.Random` gives the same numbers in every Python version; numpy's generator may not.
    rng = random.Random(number)
    canvas = _background(rng, width, height)
    pen = ImageDraw.Draw(canvas)
    for _ in range(rng.randint(2, 24)):
        _shape(rng, pen, width, height)
    if rng.random() < 0.5:
        canvas = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0, 4)))
    return _with_noise(rng, np.asarray(canvas))


def _background(rng: random.Random, width: int, height: int) -> Image.Image:
    """White as in a catalogue, one colour, or a gradient between two colours."""
    if rng.random() < 0.4:
        return Image.new("RGB", (width, height), (255, 255, 255))
    gradient = Image.linear_gradient("L").rotate(90 * rng.randint(0, 3)).resize((width, height))
    one, other = (Image.new("RGB", (width, height), _colour(rng)) for _ in range(2))
    return Image.composite(one, other, gradient)


def _shape(rng: random.Random, pen: ImageDraw.ImageDraw, width: int, height: int) -> None:
    corners = [(rng.randint(0, width), rng.randint(0, height)) for _ in range(4)]
    (left, right), (top, bottom) = (sorted(side) for side in zip(*corners[:2], strict=True))
    match rng.choice(_SHAPES):
        case "ellipse":
            pen.ellipse((left, top, right, bottom), fill=_colour(rng))
        case "rectangle":
            pen.rectangle((left, top, right, bottom), fill=_colour(rng))
        case "polygon":
            pen.polygon(corners, fill=_colour(rng))
        case _:
            pen.line(corners, fill=_colour(rng), width=rng.randint(1, 9))


def _with_noise(rng: random.Random, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Adds uniform noise of at most a tenth of the range, like a camera's."""
    amplitude = rng.randint(0, 25)
    noise = np.frombuffer(rng.randbytes(picture.size), np.uint8).reshape(picture.shape)
    levels = picture.astype(np.int16) + (noise.astype(np.int16) * amplitude // 255 - amplitude // 2)
    return levels.clip(0, 255).astype(np.uint8)


def _colour(rng: random.Random) -> tuple[int, int, int]:
    return rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255)
