"""Preprocessing of pictures: from RGB to the pixels and numbers that a network reads.

Gives the values of a model's stock processor (transformers), in less time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PreparedPicture = NDArray[np.uint8]
"""A picture as a network's input: (height, width, 3), C-contiguous, 0 to 255."""

_TORCH_MODES = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """Resizes a picture, crops its centre, and normalises its values.

    Pixels are those of the stock processor; a few differ by one or two levels of 255
    (`bench/ingest/preprocessing.py`).

    `shorter` is the length in pixels that the shorter side is resized to; None: the whole picture
    is resized to `shape`, which is (height, width), without keeping its aspect ratio. `factor` is
    multiplied with values from 0 to 255; `mean` and `std` (3,) are in 0 to 1. `exact`: the
    pixels of Pillow itself. `rounds_crop`: where the margins of a crop cannot be equal, its corner
    is rounded to the even pixel, as torchvision does.
    """

    shorter: int | None
    shape: tuple[int, int]
    resample: Image.Resampling
    factor: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    exact: bool = False
    rounds_crop: bool = False

    def prepare(self, picture: Image.Image) -> PreparedPicture:
        """An RGB picture of any size as uint8 (*shape, 3)."""
        height, width = self.shape
        if self.shorter is None:  # Pillow: the two scales differ, see `resize`
            return np.array(picture.resize((width, height), self.resample), dtype=np.uint8)
        short = min(picture.size)
        new_width, new_height = (int(self.shorter * side / short) for side in picture.size)
        left, upper = self._margin(new_width - width), self._margin(new_height - height)
        resized = self._resized(picture, (new_width, new_height))
        return np.ascontiguousarray(resized[upper : upper + height, left : left + width])

    def _resized(self, picture: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
        if self.exact:
            return np.asarray(picture.resize(size, self.resample), dtype=np.uint8)
        return resize(picture, size, self.resample)

    def _margin(self, excess: int) -> int:
        return round(excess / 2) if self.rounds_crop else excess // 2

    def normalised(self, prepared: Sequence[PreparedPicture]) -> NDArray[np.float32]:
        """Prepared pictures as float32 (n, 3, *shape), C-contiguous."""
        std = np.asarray(self.std)
        scale = (self.factor / std).astype(np.float32)
        offset = (np.asarray(self.mean) / std).astype(np.float32)
        # Transposed as uint8, which moves fewer bytes; then each operation runs over whole planes.
        planes = np.ascontiguousarray(np.stack(prepared).transpose(0, 3, 1, 2))
        values = planes.astype(np.float32)
        values *= scale[:, None, None]
        values -= offset[:, None, None]
        return values


def preprocessor_from_config(config: Mapping[str, Any]) -> Preprocessor | None:
    """What a stock processor with this configuration does; None if we cannot do the same.

    Derived from the usual names of settings: compare with the processor before using it.
    """
    try:
        return _parse(config)
    except (LookupError, TypeError, ValueError):
        return None


def _parse(config: Mapping[str, Any]) -> Preprocessor | None:
    supported = all(config[name] for name in ("do_resize", "do_rescale", "do_normalize"))
    size = {name: side for name, side in config["size"].items() if side}
    shorter = int(size["shortest_edge"]) if set(size) == {"shortest_edge"} else None
    crop = config["crop_size"] if config.get("do_center_crop") else None
    if not supported or (shorter is None) != (crop is None):
        return None
    shape = _shape(crop or size)
    if shorter is not None and max(shape) > shorter:
        return None  # the stock processor pads
    red, green, blue = (float(value) for value in config["image_mean"])
    r, g, b = (float(value) for value in config["image_std"])
    return Preprocessor(
        shorter, shape, Image.Resampling(config["resample"]), float(config["rescale_factor"]),
        (red, green, blue), (r, g, b),
    )  # fmt: skip


def _shape(size: Mapping[str, Any]) -> tuple[int, int]:
    return int(size["height"]), int(size["width"])


def resize(
    picture: Image.Image, size: tuple[int, int], resample: Image.Resampling
) -> NDArray[np.uint8]:
    """An RGB picture as uint8 (height, width, 3), C-contiguous; `size` is (width, height).

    The pixels of Pillow's `resize`, a few of them one or two levels off. They differ more next to
    hard edges where Pillow resizes vertically before horizontally, which it may do if the two
    scales differ. torch implements two of Pillow's filters and takes a quarter to a third of the
    time, with the same values on AVX2, on AVX-512 and without either. Pillow does other filters.
    """
    mode = _TORCH_MODES.get(resample)
    if mode is None:
        return np.array(picture.resize(size, resample), dtype=np.uint8)
    import torch
    from torch.nn.functional import interpolate

    # channels_last is the memory layout of numpy's pictures, so nothing is reordered.
    shape = (1, 3, picture.height, picture.width)
    pixels = torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)
    pixels.permute(0, 2, 3, 1).numpy()[0] = np.asarray(picture)
    resized = interpolate(pixels, size=size[::-1], mode=mode, antialias=True)
    rows: NDArray[np.uint8] = resized.permute(0, 2, 3, 1).numpy()[0]
    return np.ascontiguousarray(rows)


def shrink(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An RGB picture resized to a smaller size (width, height), for display."""
    return Image.fromarray(resize(picture, size, Image.Resampling.BICUBIC))
