"""Clusters of unit vectors: k-means by numpy, in blocks, so that no second copy is ever made.

numpy's OpenBLAS knows the processor it runs on; the one inside faiss does not and is several times
slower, which is why lists are trained and filled from here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.types import EmbeddingRows, Vectors
from app.vectors import to_float32

ROUNDS = (16, 16, 16, 32, 32, 64, 64)
"""Rows a centre that each round of k-means looks at. Centres find their places with few and settle
with more; ten rounds with 64 each took 2.7 times as long and made indexes of the same recall."""


BLOCK = 1024
"""Rows compared at a time: enough for the processor, few enough to be 16 MB at 4,000 centres."""


Labels = NDArray[np.int32]


def centres(vectors: EmbeddingRows, count: int) -> Vectors:
    """So many unit vectors that stand for the rows, shape (count, dim), float32.

    Spherical k-means over random rows of unit vectors, shape (n, dim), n at least `count`. The same
    rows in the same order have the same centres.
    """
    drawn = np.random.default_rng(len(vectors)).permutation(len(vectors))
    found = to_float32(vectors[drawn[:count]])
    for each in ROUNDS:
        rows = np.sort(drawn[: each * count])
        found = _moved(vectors, rows, nearest(vectors, found, rows), found)
    return found


def nearest(
    vectors: EmbeddingRows, centres: Vectors, rows: NDArray[np.int64] | None = None
) -> Labels:
    """The centre with the greatest inner product for all rows or some, shape (n,), int32."""
    count = len(vectors) if rows is None else len(rows)
    found = np.empty(count, np.int32)
    scores = np.empty((min(BLOCK, count), len(centres)), np.float32)
    for begin in range(0, count, BLOCK):
        part = slice(begin, min(begin + BLOCK, count))
        block = to_float32(vectors[part if rows is None else rows[part]])
        of_block = np.matmul(block, centres.T, out=scores[: len(block)])
        found[part] = of_block.argmax(axis=1)
    return found


def members(labels: Labels, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The places of the labels in order of label, then of place; and where each label begins and
    the last one ends, shape (count + 1,)."""
    ends = np.cumsum(np.bincount(labels, minlength=count))
    return np.argsort(labels, kind="stable"), np.concatenate([[0], ends])


def _moved(
    vectors: EmbeddingRows, rows: NDArray[np.int64], labels: Labels, before: Vectors
) -> Vectors:
    """Each centre in the middle of its rows; one without any beside that of the most rows."""
    order, bounds = members(labels, len(before))
    found = np.empty_like(before)
    for place in range(len(before)):
        mine = rows[order[bounds[place] : bounds[place + 1]]]
        found[place] = to_float32(vectors[mine]).sum(axis=0)
    _fill_empty(found, np.diff(bounds))
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return np.where(lengths > 0, found / np.maximum(lengths, 1e-30), before).astype(np.float32)


def _fill_empty(centres: Vectors, sizes: NDArray[np.int64]) -> None:
    """Split the largest clusters, each once, in place of those that no row is nearest to.

    Once, for one that holds copies of a picture is not parted by it and would take all of them. The
    two halves are pushed apart a little, coordinate by coordinate, as faiss does it.
    """
    push = np.where(np.arange(centres.shape[1]) % 2, 1 - 1 / 1024, 1 + 1 / 1024)
    largest = np.argsort(-sizes, kind="stable")[: int((sizes > 1).sum())]
    for empty, full in zip(np.flatnonzero(sizes == 0), largest, strict=False):
        centres[empty] = centres[full] * push
        centres[full] *= 2 - push
