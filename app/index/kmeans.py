"""Spherical k-means over unit vectors.

Everything works in blocks, so that the vectors are never copied as a whole. numpy's OpenBLAS
detects the processor; the one bundled with FAISS does not and is several times slower, which is why
inverted lists are trained and filled from here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.types import EmbeddingRows, Vectors
from app.vectors import to_float32

SAMPLES_PER_CENTROID = (16, 16, 16, 32, 32, 64, 64)
"""Rows per centroid that each round of k-means uses. Few rows suffice to place the centroids, more
are needed to settle them; ten rounds with 64 each took 2.7 times as long for the same recall."""

BLOCK_ROWS = 1024
"""Rows compared at a time: large enough for an efficient matrix product, and the scores take 16 MB
with 4,000 centroids."""

MAX_SAMPLE_BYTES = 512 << 20
"""Largest sample of float16 rows. It is reached at four million rows of 512 dimensions; above, the
last rounds have fewer rows per centroid."""

Labels = NDArray[np.int32]


def sample_size(count: int, dim: int) -> int:
    """The number of random rows that training `count` centroids uses."""
    return max(count, min(SAMPLES_PER_CENTROID[-1] * count, MAX_SAMPLE_BYTES // (2 * dim)))


def train(vectors: EmbeddingRows, count: int) -> Vectors:
    """Train `count` centroids, unit vectors of shape (count, dim), float32.

    Spherical k-means over random rows of unit vectors, shape (n, dim), with n at least `count`.
    Deterministic: the same rows in the same order give the same centroids.
    """
    drawn = np.random.default_rng(len(vectors)).permutation(len(vectors))
    centroids = to_float32(vectors[drawn[:count]])
    for samples in SAMPLES_PER_CENTROID:
        rows = np.sort(drawn[: samples * count])
        labels = assign(vectors, centroids, rows)
        centroids = _updated_centroids(vectors, rows, labels, centroids)
    return centroids


def assign(
    vectors: EmbeddingRows, centroids: Vectors, rows: NDArray[np.int64] | None = None
) -> Labels:
    """The centroid with the greatest inner product for each of the `rows` (default: all), shape
    (n,), int32."""
    count = len(vectors) if rows is None else len(rows)
    labels = np.empty(count, np.int32)
    scores = np.empty((min(BLOCK_ROWS, count), len(centroids)), np.float32)
    for begin in range(0, count, BLOCK_ROWS):
        part = slice(begin, min(begin + BLOCK_ROWS, count))
        block = to_float32(vectors[part if rows is None else rows[part]])
        block_scores = np.matmul(block, centroids.T, out=scores[: len(block)])
        labels[part] = block_scores.argmax(axis=1)
    return labels


def group_by_label(labels: Labels, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions ordered by label, then by position; and the bounds of each label in that order,
    shape (count + 1,)."""
    ends = np.cumsum(np.bincount(labels, minlength=count))
    return np.argsort(labels, kind="stable"), np.concatenate([[0], ends])


def _updated_centroids(
    vectors: EmbeddingRows, rows: NDArray[np.int64], labels: Labels, before: Vectors
) -> Vectors:
    """Each centroid at the mean direction of its rows; empty clusters split a large one."""
    order, bounds = group_by_label(labels, len(before))
    sums = np.empty_like(before)
    for number in range(len(before)):
        members = rows[order[bounds[number] : bounds[number + 1]]]
        sums[number] = to_float32(vectors[members]).sum(axis=0)
    _fill_empty(sums, np.diff(bounds))
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.where(lengths > 0, sums / np.maximum(lengths, 1e-30), before).astype(np.float32)


def _fill_empty(centroids: Vectors, sizes: NDArray[np.int64]) -> None:
    """Replace centroids of empty clusters by splitting the largest clusters, each at most once.

    At most once, because a cluster of identical pictures does not separate and would absorb all of
    them. The two halves are moved apart by alternating factors per coordinate, as FAISS does.
    """
    push = np.where(np.arange(centroids.shape[1]) % 2, 1 - 1 / 1024, 1 + 1 / 1024)
    largest = np.argsort(-sizes, kind="stable")[: int((sizes > 1).sum())]
    for empty, full in zip(np.flatnonzero(sizes == 0), largest, strict=False):
        centroids[empty] = centroids[full] * push
        centroids[full] *= 2 - push
