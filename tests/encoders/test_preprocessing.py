"""Resizing with torch gives the pixels of Pillow."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from app.encoders.preprocessing import resize, shrink
from app.images.thumbnails import open_thumbnail, thumbnail

SIZES = [(640, 427), (97, 331), (224, 224), (9, 70), (31, 29), (1, 1)]
FILTERS = [Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS]


def noisy(width: int, height: int) -> Image.Image:
    levels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("resample", FILTERS)
def test_resizing_gives_the_pixels_of_pillow(
    size: tuple[int, int], resample: Image.Resampling
) -> None:
    picture = noisy(*size)
    width, height = (int(150 * side / min(size)) for side in size)
    resized = resize(picture, (width, height), resample)
    expected = np.asarray(picture.resize((width, height), resample), dtype=int)
    assert resized.flags.c_contiguous and resized.dtype == np.uint8
    assert resized.shape == (height, width, 3)
    assert np.abs(resized - expected).max() <= 2
    assert np.abs(resized - expected).mean() < 0.05


def test_a_thumbnail_made_with_torch_is_like_one_made_with_pillow() -> None:
    picture = noisy(30, 20).resize((900, 600), Image.Resampling.BICUBIC)
    by_torch, by_pillow = (
        open_thumbnail(d) for d in (thumbnail(picture, scale=shrink), thumbnail(picture))
    )
    assert by_torch.size == by_pillow.size == (320, 213)
    difference = np.asarray(by_torch, dtype=int) - np.asarray(by_pillow, dtype=int)
    assert np.abs(difference).mean() < 1


def test_resizing_does_not_change_the_picture() -> None:
    picture = noisy(40, 30)
    before = picture.tobytes()
    resize(picture, (20, 15), Image.Resampling.BICUBIC)[:] = 0
    assert picture.tobytes() == before
