"""Cuts objects out of catalogue photos whose background is plain enough for a clean mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage

RING = 0.04
"""Width of the border from which the background's colours are taken, as a share of the side."""

COLOURS = 4
"""Colours of the background that are told apart."""

MAX_DISTANCE = 3.6
"""Standard deviations from the nearest background colour up to which a pixel is background."""

MIN_SPREAD = 6.0
"""Smallest standard deviation of a background colour, in levels of 255: the noise of a JPEG."""

AREA = (0.12, 0.72)
"""Smallest and largest share of the photo that an object may cover."""

MAX_CONTACT = 0.04
"""Largest share of the border that an object may touch; more means that it is cut off."""

ERODED = 2
"""Pixels removed from the edge of a mask, so that no halo of the background remains."""


def cut_out(photo: Image.Image) -> Image.Image | None:
    """The object of a photo as RGBA, cropped to its mask; None where no clean mask was found."""
    mask = object_mask(np.asarray(photo.convert("RGB")))
    if mask is None:
        return None
    alpha = Image.fromarray((mask * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.7))
    cut = photo.convert("RGBA")
    cut.putalpha(alpha)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return cut.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))


def object_mask(pixels: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """The mask (height, width) of the one object in RGB pixels; None if there is no clean one.

    Pixels like the border's colours and connected to the border are background; the object is the
    largest part of the rest, without holes.
    """
    values = ndimage.gaussian_filter(pixels.astype(np.float32), (1, 1, 0))
    height, width = values.shape[:2]
    ring = np.zeros((height, width), bool)
    edge = max(2, int(RING * min(height, width)))
    ring[:edge] = ring[-edge:] = True
    ring[:, :edge] = ring[:, -edge:] = True
    near = _background_distance(values, values[ring]) < MAX_DISTANCE
    near = ndimage.binary_opening(near, iterations=1)
    labels, _ = ndimage.label(near)
    touching = np.unique(labels[ring & near])
    background = np.isin(labels, touching[touching > 0])
    parts, count = ndimage.label(ndimage.binary_opening(~background, iterations=3))
    if not count:
        return None
    sizes = ndimage.sum_labels(np.ones_like(parts), parts, np.arange(1, count + 1))
    largest = ndimage.binary_fill_holes(parts == 1 + int(np.argmax(sizes)))
    rest = sizes.sum() - sizes.max()
    mask = ndimage.binary_erosion(largest, iterations=ERODED)
    area = mask.mean()
    contact = (largest & ring).sum() / ring.sum()
    clean = AREA[0] <= area <= AREA[1] and contact <= MAX_CONTACT and rest < 0.1 * sizes.max()
    return mask if clean else None


def _background_distance(
    values: NDArray[np.float32], border: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Distance (height, width) of each pixel from the nearest of the border's colours, in standard
    deviations of that colour."""
    centres = border[np.linspace(0, len(border) - 1, COLOURS).astype(int)]
    for _ in range(10):
        nearest = ((border[:, None] - centres) ** 2).sum(2).argmin(1)
        for number in range(COLOURS):
            if (nearest == number).any():
                centres[number] = border[nearest == number].mean(0)
    distances = []
    for number in range(COLOURS):
        members = border[nearest == number]
        if len(members) < 0.05 * len(border):
            continue
        spread = np.maximum(members.std(0), MIN_SPREAD)
        distances.append(np.sqrt((((values - centres[number]) / spread) ** 2).mean(2)))
    return np.asarray(np.min(distances, axis=0), np.float32)
