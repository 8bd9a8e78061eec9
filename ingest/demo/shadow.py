"""The shadow of an object on the surface below or behind it."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ingest.demo.paint import Plane
from ingest.demo.shading import soften


def shadow(alpha: Plane, light: float, stands: bool) -> Plane:
    """The darkness of the shadow, 0 to 1."""
    # Shadows are soft, so half the resolution is enough.
    small = np.asarray(Image.fromarray(alpha).reduce(2))
    dark = _thrown(small, light) if stands else _dropped(small, light)
    size = (alpha.shape[1], alpha.shape[0])
    return np.asarray(Image.fromarray(dark).resize(size, Image.Resampling.BILINEAR))


def _dropped(alpha: Plane, light: float) -> Plane:
    """The shadow on a surface that the object lies on: sharp when close, soft when far."""
    near, far = soften(alpha, 3), soften(alpha, 9)
    drop = 0.35 * _moved(near, 3 * light, 4) + 0.28 * _moved(far, 6 * light, 8)
    return np.asarray(np.clip(drop, 0, 0.6), dtype=np.float32)


def _thrown(alpha: Plane, light: float) -> Plane:
    """The shadow on the floor: dark at the contact, long and faint behind the object."""
    rows = np.flatnonzero(alpha.max(axis=1) > 0.5)
    if not len(rows):
        return np.zeros_like(alpha)
    ground = int(rows[-1])
    close = soften(_laid(alpha, ground, 0.045, 0.0), 2.5)
    long = soften(_laid(alpha, ground, 0.22, 0.9 * light), 5.5)
    return np.asarray(np.clip(0.55 * close + 0.30 * long, 0, 0.7), dtype=np.float32)


def _moved(plane: Plane, across: float, down: float) -> Plane:
    moved: Plane = np.roll(plane, (round(down), round(across)), (0, 1))
    return moved


def _laid(alpha: Plane, ground: int, flat: float, lean: float) -> Plane:
    """The silhouette projected onto the floor behind it, `flat` times as tall, sheared."""
    size = len(alpha)
    middle = ground - 1
    up = middle - np.arange(size)[:, None]
    source = middle - up / flat
    across = np.arange(size)[None, :] - lean * up
    inside = (source >= 0) & (source < size) & (across >= 0) & (across < size)
    rows = np.clip(source, 0, size - 1).astype(np.int32)
    columns = np.clip(across, 0, size - 1).astype(np.int32)
    return np.where(inside, alpha[rows, columns], 0).astype(np.float32)
