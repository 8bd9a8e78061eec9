"""The pixels a vision tower reads, made as the stock processor makes them, and faster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Prepared = NDArray[np.uint8]
"""A picture as a network reads it: (height, width, 3), C-contiguous, 0 to 255."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """Scale a picture, cut its middle out, and turn its grey levels into a network's input.

    Values are those of the stock processor, here and there one or two grey levels of 255 off
    (`bench/ingest/preprocessing.py`).

    `shorter` is the side in pixels that the shorter one is scaled to; None: the whole picture is
    squashed to `shape`, which is (height, width). `mean` and `std` (3,) are in 0 to 1.
    """

    shorter: int | None
    shape: tuple[int, int]
    resample: Image.Resampling
    factor: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def prepare(self, picture: Image.Image) -> Prepared:
        """An RGB picture of any size as uint8 (*shape, 3)."""
        height, width = self.shape
        if self.shorter is None:  # the sides are not scaled alike, see `scaled`
            return np.array(picture.resize((width, height), self.resample), dtype=np.uint8)
        short = min(picture.size)
        wide, high = (int(self.shorter * side / short) for side in picture.size)
        left, upper = (wide - width) // 2, (high - height) // 2
        whole = scaled(picture, (wide, high), self.resample)
        return np.ascontiguousarray(whole[upper : upper + height, left : left + width])

    def normalised(self, prepared: Sequence[Prepared]) -> NDArray[np.float32]:
        """Prepared pictures as float32 (n, 3, *shape), C-contiguous."""
        std = np.asarray(self.std)
        scale = (self.factor / std).astype(np.float32)
        offset = (np.asarray(self.mean) / std).astype(np.float32)
        # Channels first while the numbers are small, so that the rest runs over whole planes.
        planes = np.ascontiguousarray(np.stack(prepared).transpose(0, 3, 1, 2))
        rows = planes.astype(np.float32)
        rows *= scale[:, None, None]
        rows -= offset[:, None, None]
        return rows


def from_settings(settings: Mapping[str, Any]) -> Pixels | None:
    """What a stock processor with these settings does, or None if it does something else.

    A guess from the usual names: compare with the processor before it is used.
    """
    try:
        return _understood(settings)
    except (LookupError, TypeError, ValueError):
        return None


def _understood(settings: Mapping[str, Any]) -> Pixels | None:
    wanted = all(settings[name] for name in ("do_resize", "do_rescale", "do_normalize"))
    size = {name: side for name, side in settings["size"].items() if side}
    shorter = int(size["shortest_edge"]) if set(size) == {"shortest_edge"} else None
    crop = settings["crop_size"] if settings.get("do_center_crop") else None
    if not wanted or (shorter is None) != (crop is None):
        return None
    shape = _shape(crop or size)
    if shorter is not None and max(shape) > shorter:
        return None  # the stock processor pads
    red, green, blue = (float(value) for value in settings["image_mean"])
    r, g, b = (float(value) for value in settings["image_std"])
    return Pixels(
        shorter, shape, Image.Resampling(settings["resample"]), float(settings["rescale_factor"]),
        (red, green, blue), (r, g, b),
    )  # fmt: skip


def _shape(size: Mapping[str, Any]) -> tuple[int, int]:
    return int(size["height"]), int(size["width"])


_MODES = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}


def scaled(
    picture: Image.Image, size: tuple[int, int], resample: Image.Resampling
) -> NDArray[np.uint8]:
    """An RGB picture as uint8 (height, width, 3), C-contiguous; `size` is (width, height).

    What Pillow's `resize` gives, with values one or two grey levels off here and there; more beside
    hard edges where Pillow goes down before it goes across, as it may if the sides are not scaled
    alike. torch has two of its filters and takes a quarter to a third of the time, and the
    values are the same with AVX2, AVX-512 and neither; the other filters are left to Pillow.
    """
    mode = _MODES.get(resample)
    if mode is None:
        return np.array(picture.resize(size, resample), dtype=np.uint8)
    import torch
    from torch.nn.functional import interpolate

    # Rows of whole pixels go in and come out, so that nothing is put in another order.
    shape = (1, 3, picture.height, picture.width)
    pixels = torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)
    pixels.permute(0, 2, 3, 1).numpy()[0] = np.asarray(picture)
    found = interpolate(pixels, size=size[::-1], mode=mode, antialias=True)
    rows: NDArray[np.uint8] = found.permute(0, 2, 3, 1).numpy()[0]
    return np.ascontiguousarray(rows)


def smaller(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An RGB picture in a smaller size (width, height), for people to look at."""
    return Image.fromarray(scaled(picture, size, Image.Resampling.BICUBIC))
