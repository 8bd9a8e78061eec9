"""recall@k: the share of the exact nearest rows that an index finds too."""

from __future__ import annotations

import numpy as np

from app.ann import AnnIndex, Ids
from app.content import Content
from app.values import Vectors

RECALL_SAMPLE = 400
"""Queries a build is measured with: recall 0.99 is then known to about half a percent."""


def sample_queries(vectors: Vectors) -> Vectors:
    """Catalogue vectors, each moved a little as another photo of the same thing would be."""
    random = np.random.default_rng(2024)
    chosen = random.permutation(len(vectors))[:RECALL_SAMPLE]
    noise = random.standard_normal((len(chosen), vectors.shape[1]), dtype=np.float32)
    noise *= 0.5 / np.linalg.norm(noise, axis=1, keepdims=True)
    moved: Vectors = vectors[chosen] + noise
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    return moved


def exact_ids(content: Content, queries: Vectors, k: int) -> Ids:
    """The ids of the k rows with the greatest inner product, shape (len(queries), k).

    Read in blocks, so that the scores of a million rows never stand in memory at once.
    """
    best_scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    best_ids = np.full((len(queries), k), -1, dtype=np.int64)
    for begin in range(0, len(content.ids), 65_536):
        block = slice(begin, begin + 65_536)
        scores = np.hstack([best_scores, queries @ content.vectors[block].T])
        ids = np.hstack([best_ids, np.tile(content.ids[block], (len(queries), 1))])
        top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        best_scores = np.take_along_axis(scores, top, axis=1)
        best_ids = np.take_along_axis(ids, top, axis=1)
    return best_ids


def recall(index: AnnIndex, queries: Vectors, exact: Ids) -> float:
    """The share of the exact nearest that the index found too, 0 to 1."""
    _, found = index.search(queries, exact.shape[1])
    hits = sum(len(np.intersect1d(a, b)) for a, b in zip(found, exact, strict=True))
    return hits / exact.size
