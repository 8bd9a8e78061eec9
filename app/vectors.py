"""Arithmetic of embeddings: unit length, and the float16 precision of the table."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from app.types import EmbeddingRows, Vector, Vectors

_FLOAT32_BITS = np.int32(~0x70001FFF)
"""Mask for a float16 that was shifted to float32's bit layout: removes the copies of its sign bit
from the exponent."""

_EXPONENT_OFFSET = np.float32(2.0**112)
"""The exponent bias of float32 is 127 and that of float16 is 15: 2 to their difference."""


def round_to_float16(vectors: Vectors) -> Vectors:
    """float32 values rounded to float16, the precision of the table; any shape."""
    rounded: Vectors = vectors.astype(np.float16).astype(np.float32)
    return rounded


def length(vector: Vector) -> float:
    """Euclidean length of a vector (dim,), computed in float64."""
    wide = vector.astype(np.float64)
    return math.sqrt(wide @ wide)


def unit(vector: Vector) -> Vector:
    """A vector (dim,) at unit length, computed in float32. It must not be zero."""
    return vector / np.float32(np.linalg.norm(vector))


def unit_float64(vector: Vector) -> NDArray[np.float64]:
    """A vector (dim,) at unit length, computed in float64. It must not be zero.

    In float64 the order of summation hardly matters, so other libraries compute the same vector.
    """
    return vector.astype(np.float64) / length(vector)


def unit_rows(rows: EmbeddingRows) -> Vectors:
    """A float32 copy of rows (n, dim), each at unit length. No row may be zero."""
    vectors = to_float32(rows)
    vectors /= np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, np.newaxis]
    return vectors


def to_float32(rows: EmbeddingRows) -> Vectors:
    """An exact float32 copy of finite rows (n, dim).

    float16 is converted by moving its bits, which takes a tenth of the time that numpy's conversion
    takes. Infinity and NaN become numbers greater than 60,000.
    """
    if rows.dtype != np.float16:
        return rows.astype(np.float32)
    bits = rows.view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= _FLOAT32_BITS
    vectors: Vectors = bits.view(np.float32)
    vectors *= _EXPONENT_OFFSET
    return vectors


def cosines(rows: EmbeddingRows, others: EmbeddingRows) -> NDArray[np.float64]:
    """The cosine similarities of rows (n, dim) to others (m, dim), none of which may be zero: shape
    (n, m), computed in float64."""
    wide, narrow = rows.astype(np.float64), others.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1)[:, np.newaxis] * np.linalg.norm(narrow, axis=1)
    products: NDArray[np.float64] = np.einsum("id,jd->ij", wide, narrow) / lengths
    return products
