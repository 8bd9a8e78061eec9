"""Simulates that a picture was photographed again: turned, cropped, darker and compressed."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageEnhance

from app.images.decoding import decode

TURN = 8.0
"""Largest turn in degrees, to either side."""

KEPT = (0.82, 0.96)
"""Share of each side that the crop keeps."""

BRIGHTNESS = (0.6, 0.95)

QUALITY = (25, 50)
"""JPEG quality."""


def photograph_again(picture: Image.Image, seed: int, side: int = 0) -> Image.Image:
    """A worse photo of an RGB picture; the same seed gives the same photo.

    A picture whose longer side has fewer than `side` pixels is enlarged to it first. The corners
    that a turn leaves open take the picture's median colour at its border.
    """
    random = np.random.default_rng(seed)
    picture = _enlarged(picture, side)
    turned = picture.rotate(
        random.uniform(-TURN, TURN), Image.Resampling.BICUBIC, fillcolor=_border_colour(picture)
    )
    width, height = (max(1, round(side * random.uniform(*KEPT))) for side in picture.size)
    left = int(random.integers(0, picture.width - width + 1))
    top = int(random.integers(0, picture.height - height + 1))
    part = turned.crop((left, top, left + width, top + height))
    darker = ImageEnhance.Brightness(part).enhance(random.uniform(*BRIGHTNESS))
    file = BytesIO()
    darker.save(file, "JPEG", quality=int(random.integers(*QUALITY)))
    return decode(file.getvalue())


def _enlarged(picture: Image.Image, side: int) -> Image.Image:
    scale = side / max(picture.size)
    if scale <= 1:
        return picture
    size = round(picture.width * scale), round(picture.height * scale)
    return picture.resize(size, Image.Resampling.BICUBIC)


def _border_colour(picture: Image.Image) -> tuple[int, int, int]:
    pixels = np.asarray(picture)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = np.median(border, axis=0).astype(int).tolist()
    return red, green, blue
