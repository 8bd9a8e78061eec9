"""What `app.encoders.preprocessing` promises: Pillow's filters, faster."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from app.encoders.preprocessing import scaled, smaller
from app.images.thumbnails import open_thumbnail, thumbnail

SIZES = [(640, 427), (97, 331), (224, 224), (9, 70), (31, 29), (1, 1)]
FILTERS = [Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS]


def noisy(width: int, height: int) -> Image.Image:
    levels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("resample", FILTERS)
def test_a_scaled_picture_is_pillows(size: tuple[int, int], resample: Image.Resampling) -> None:
    picture = noisy(*size)
    wide, high = (int(150 * side / min(size)) for side in size)
    found = scaled(picture, (wide, high), resample)
    expected = np.asarray(picture.resize((wide, high), resample), dtype=int)
    assert found.flags.c_contiguous and found.dtype == np.uint8
    assert found.shape == (high, wide, 3)
    assert np.abs(found - expected).max() <= 2
    assert np.abs(found - expected).mean() < 0.05


def test_a_thumbnail_made_fast_looks_like_any_other() -> None:
    picture = noisy(30, 20).resize((900, 600), Image.Resampling.BICUBIC)
    fast, usual = (
        open_thumbnail(d) for d in (thumbnail(picture, scale=smaller), thumbnail(picture))
    )
    assert fast.size == usual.size == (320, 213)
    assert np.abs(np.asarray(fast, dtype=int) - np.asarray(usual, dtype=int)).mean() < 1


def test_a_picture_that_is_scaled_stays_as_it_is() -> None:
    picture = noisy(40, 30)
    before = picture.tobytes()
    scaled(picture, (20, 15), Image.Resampling.BICUBIC)[:] = 0
    assert picture.tobytes() == before
