"""recall@k: the share of the exact nearest rows that an index finds too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.ann import AnnIndex, Only, deep_look
from app.content import Content
from app.values import Vector, Vectors

SAMPLE = 400
"""Queries a build is measured with: recall 0.99 is then known to about half a percent."""

EPSILON = 1e-5
"""Cosine by which a row may be worse than the k-th best and still count as equal to it."""

BLOCK = 65_536

SHARES = (0.5, 0.2, 0.05)
"""Shares of the rows that pass the filters a build is measured with."""

FILTERED = 100
"""Queries a build is measured with for each of them."""


class Yardstick:
    """Queries with the similarity of their k-th nearest row, to measure indexes of one content.

    Half of them, where there are enough, are `real` queries (unit vectors, shape (n, dim)), the
    rest pictures of the catalogue. A row that was found counts if it is as near as the k-th
    nearest, as ann-benchmarks counts: of rows that are equally near, any is right.
    """

    def __init__(
        self, content: Content, k: int = 10, *, real: Vectors | None = None, sample: int = SAMPLE
    ) -> None:
        self._content = content
        self.k = min(k, len(content.ids))
        asked = real[: sample // 2] if real is not None else content.vectors[:0]
        drawn = sample_queries(content.vectors, sample - len(asked))
        self.queries: Vectors = np.vstack([asked, drawn])
        self._floor = kth_best(content.vectors, self.queries, self.k) - EPSILON
        self._order = np.argsort(content.ids)
        self._ids = content.ids[self._order]

    def recall(self, index: AnnIndex) -> float:
        """The share of the k nearest, over all queries, that the index found (0 to 1)."""
        if self.k == 0:
            return 1.0
        _, found = index.search(self.queries, self.k)
        hits = sum(
            int((self._similarities(query, ids) >= floor).sum())
            for query, ids, floor in zip(self.queries, found, self._floor, strict=True)
        )
        return hits / found.size

    def filtered_recall(self, index: AnnIndex, shares: Sequence[float] = SHARES) -> float:
        """The same where only a random share of the rows passes (0 to 1), asked as searches do.

        An index is looked into deeper, and among the rows that pass where that brings too few;
        which rows pass has nothing to do with where they lie. That is the way of `filtered`.
        """
        found = [self._filtered(index, share) for share in shares if self.k]
        return float(np.mean(found)) if found else 1.0

    def _filtered(self, index: AnnIndex, share: float) -> float:
        ids = self._content.ids
        passes = np.random.default_rng(round(1e6 * share)).random(len(ids)) < share
        k = min(self.k, int(passes.sum()))
        if k == 0:
            return 1.0
        queries = self.queries[:FILTERED]
        floor = kth_best(self._content.vectors[passes], queries, k) - EPSILON
        allowed, only = ids[passes], Only(ids[passes])
        hits = 0
        for query, least in zip(queries, floor, strict=True):
            got = index.nominate(query, *deep_look(k + 16, k, share)).ids
            got = got[np.isin(got, allowed)]
            if len(got) < k:
                got = index.nominate(query, k, only=only).ids
            hits += min(k, int((self._similarities(query, got) >= least).sum()))
        return hits / (k * len(queries))

    def _similarities(self, query: Vector, found: NDArray[np.int64]) -> NDArray[np.float32]:
        """Exact similarities of ids, shape (k,); -inf for what an index did not find."""
        places = np.minimum(np.searchsorted(self._ids, found), len(self._ids) - 1)
        rows = self._content.vectors[self._order[places]]
        return np.where(self._ids[places] == found, rows @ query, -np.inf).astype(np.float32)


def sample_queries(vectors: Vectors, sample: int) -> Vectors:
    """Rows of the catalogue, each moved a little as another photo of the same thing would be."""
    random = np.random.default_rng(2024)
    chosen = random.permutation(len(vectors))[:sample]
    noise = random.standard_normal((len(chosen), vectors.shape[1]), dtype=np.float32)
    noise *= 0.5 / np.linalg.norm(noise, axis=1, keepdims=True)
    moved: Vectors = vectors[chosen] + noise
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    return moved


def kth_best(vectors: Vectors, queries: Vectors, k: int) -> NDArray[np.float32]:
    """The k-th greatest inner product of each query with all rows, shape (len(queries),).

    Read in blocks, so that the scores of a million rows never stand in memory at once.
    """
    best = np.full((len(queries), k), -np.inf, dtype=np.float32)
    for begin in range(0, len(vectors), BLOCK):
        scores = np.hstack([best, queries @ vectors[begin : begin + BLOCK].T])
        best = np.partition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k :]
    return best.min(axis=1) if k else np.empty(len(queries), np.float32)
