"""An encoder with a linear map after it, which a catalogue's own pairs were fitted to.

Pictures are mapped by W and scaled to unit length. Words are mapped by the transposed inverse of W,
so that the dot product of a word and a picture stays what it was, but for the picture's length.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from app.encoders.base import Encoder
from app.types import Vectors
from app.vectors import unit_rows

if TYPE_CHECKING:
    from PIL.Image import Image

    from app.encoders.feature_map import FeatureMap
    from app.encoders.preprocessing import PreparedPicture
    from app.types import Region

Matrix = NDArray[np.float32]
"""A square matrix (dim, dim), by which rows are multiplied from the right."""

MAX_CONDITION = 1e4
"""Largest condition number of a map: words go through its inverse."""


class ProjectedEncoder:
    """`base` followed by the map `weights`; `name` is that of the fitted model.

    See `Encoder` for the methods. Raises ValueError for weights that are not a finite, invertible
    matrix (dim, dim).
    """

    def __init__(self, name: str, base: Encoder, weights: Matrix) -> None:
        self.name = name
        self.base = base
        self.dim = base.dim
        self._weights = checked(weights, base.dim)
        self._for_words = np.linalg.inv(self._weights.astype(np.float64)).T.astype(np.float32)
        self.fingerprint = fingerprint(base.fingerprint, self._weights)
        self.revision = self.fingerprint[:12]
        self.reads_words = base.reads_words
        self.maps_regions = base.maps_regions
        self.input_side = base.input_side
        self.batch_size = base.batch_size

    @property
    def runtime(self) -> str:
        """What runs the network, and that a map follows."""
        return f"{self.base.runtime}, followed by a fitted map"

    def project(self, vectors: Vectors) -> Vectors:
        """Unit rows (n, dim) of the base's pictures to those of this model."""
        return unit_rows(vectors @ self._weights) if len(vectors) else vectors

    def encode_pictures(self, pictures: Sequence[Image]) -> Vectors:
        return self.project(self.base.encode_pictures(pictures))

    def prepare(self, picture: Image) -> PreparedPicture:
        return self.base.prepare(picture)

    def encode_prepared(self, prepared: Sequence[PreparedPicture]) -> Vectors:
        return self.project(self.base.encode_prepared(prepared))

    def encode_map(self, picture: Image) -> FeatureMap:
        return self.base.encode_map(picture)

    def pool_windows(self, feature_map: FeatureMap, windows: Sequence[Region]) -> Vectors:
        return self.project(self.base.pool_windows(feature_map, windows))

    def encode_words(self, words: Sequence[str]) -> Vectors:
        vectors = self.base.encode_words(words)
        known = vectors.any(axis=1)
        vectors[known] = unit_rows(vectors[known] @ self._for_words)
        return vectors


def base_of(encoder: Encoder) -> Encoder:
    """The encoder itself, or the one that a fitted one follows."""
    return encoder.base if isinstance(encoder, ProjectedEncoder) else encoder


def from_base(encoder: Encoder, vectors: Vectors) -> Vectors:
    """Unit rows (n, dim) of an encoder's pictures, from those of `base_of` it."""
    return encoder.project(vectors) if isinstance(encoder, ProjectedEncoder) else vectors


def checked(weights: Matrix, dim: int) -> Matrix:
    """The weights, C-contiguous. Raises ValueError unless they are a finite, invertible matrix."""
    if weights.shape != (dim, dim) or not np.isfinite(weights).all():
        raise ValueError(f"no finite matrix of {dim} x {dim}")
    if np.linalg.cond(weights.astype(np.float64)) > MAX_CONDITION:
        raise ValueError("the matrix is nearly singular")
    return np.ascontiguousarray(weights, np.float32)


def fingerprint(base: str, weights: Matrix) -> str:
    """sha256 (hex) of the base's fingerprint and the weights."""
    content = base.encode() + np.ascontiguousarray(weights, "<f4").tobytes()
    return hashlib.sha256(b"projection 1\0" + content).hexdigest()
