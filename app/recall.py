"""recall@k: the share of the exact nearest rows that an index finds too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.ann import AnnIndex, Only, deep_look
from app.content import Content
from app.values import Rows, Vector, Vectors
from app.vectors import unit

SAMPLE = 400
"""Queries a build is measured with: recall 0.99 is then known to about half a percent."""

EPSILON = 1e-5
"""Cosine by which a row may be worse than the k-th best and still count as equal to it."""

BLOCK = 8192
"""Rows compared at a time; the scores of a million rows never stand in memory at once."""

SHARES = (0.5, 0.2, 0.05)
"""Shares of the rows that pass the filters a build is measured with."""

FILTERED = 100
"""Queries a build is measured with for each of them."""

FILTERED_DEPTH = 10

Floor = NDArray[np.float32]
"""The least similarity that counts, of each query."""


class Yardstick:
    """Queries with the similarities of their nearest rows, to measure indexes of one content.

    Half of them, where there are enough, are `real` queries (unit vectors, shape (n, dim)), the
    rest pictures of the catalogue. A row that was found counts if it is as near as the k-th
    nearest, as ann-benchmarks counts: of rows that are equally near, any is right.

    The rows are read once, in blocks, for all `depths` (the k that can be measured) and, if
    `filtered`, for all `SHARES`.
    """

    def __init__(
        self,
        content: Content,
        depths: Sequence[int] = (10,),
        *,
        real: Vectors | None = None,
        sample: int = SAMPLE,
        filtered: bool = True,
    ) -> None:
        self._content = content
        asked = real[: sample // 2] if real is not None else np.empty((0, content.dim), np.float32)
        drawn = sample_queries(content.vectors, sample - len(asked))
        self.queries: Vectors = np.vstack([asked, drawn])
        self._passing = {share: self._drawn(share) for share in (SHARES if filtered else ())}
        self.floors, self._filtered_floors = self._exact(depths)
        self._order = np.argsort(content.ids)
        self._ids = content.ids[self._order]

    def recall(self, index: AnnIndex, depth: int = 10) -> float:
        """The share of the `depth` nearest, over all queries, that the index found (0 to 1)."""
        k = min(depth, len(self._ids))
        if k == 0:
            return 1.0
        _, found = index.search(self.queries, k)
        hits = sum(
            int((self._similarities(query, ids) >= floor).sum())
            for query, ids, floor in zip(self.queries, found, self.floors[depth], strict=True)
        )
        return hits / found.size

    def filtered_recall(self, index: AnnIndex) -> float:
        """Of the ten nearest, where only a random share of the rows passes (0 to 1), asked as
        searches do.

        An index is looked into deeper, and among the rows that pass where that brings too few;
        which rows pass has nothing to do with where they lie. That is the way of `filtered`.
        """
        found = [self._filtered(index, share) for share in self._passing if len(self._ids)]
        return float(np.mean(found)) if found else 1.0

    def _filtered(self, index: AnnIndex, share: float) -> float:
        allowed = self._content.ids[self._passing[share]]
        k = min(FILTERED_DEPTH, len(allowed))
        if k == 0:
            return 1.0
        queries, only, hits = self.queries[:FILTERED], Only(allowed), 0
        for query, least in zip(queries, self._filtered_floors[share], strict=True):
            got = index.nominate(query, *deep_look(k + 16, k, share)).ids
            got = got[np.isin(got, allowed)]
            if len(got) < k:
                got = index.nominate(query, k, only=only).ids
            hits += min(k, int((self._similarities(query, got) >= least).sum()))
        return hits / (k * len(queries))

    def _drawn(self, share: float) -> NDArray[np.bool_]:
        return np.random.default_rng(round(1e6 * share)).random(len(self._content.ids)) < share

    def _exact(self, depths: Sequence[int]) -> tuple[dict[int, Floor], dict[float, Floor]]:
        """By depth, and among the rows that pass by share: how near the last right row is."""
        rows = len(self._content.ids)
        best = Best(len(self.queries), min(max(depths), rows))
        passing = {
            share: Best(len(self.queries[:FILTERED]), min(FILTERED_DEPTH, int(passes.sum())))
            for share, passes in self._passing.items()
        }
        for begin in range(0, rows, BLOCK):
            block = unit(self._content.vectors[begin : begin + BLOCK])
            scores = self.queries @ block.T
            best.offer(scores)
            for share, kept in passing.items():
                kept.offer(scores[:FILTERED, self._passing[share][begin : begin + BLOCK]])
        return (
            {depth: best.kth(min(depth, rows)) - EPSILON for depth in depths},
            {share: kept.kth(kept.most) - EPSILON for share, kept in passing.items()},
        )

    def _similarities(self, query: Vector, found: NDArray[np.int64]) -> NDArray[np.float32]:
        """Exact similarities of ids, shape (k,); -inf for what an index did not find."""
        places = np.minimum(np.searchsorted(self._ids, found), len(self._ids) - 1)
        rows = unit(self._content.vectors[self._order[places]])
        return np.where(self._ids[places] == found, rows @ query, -np.inf).astype(np.float32)


class Best:
    """The `most` greatest scores of each query among all that were offered."""

    def __init__(self, queries: int, most: int) -> None:
        self.most = most
        self._kept = np.full((queries, most), -np.inf, dtype=np.float32)

    def offer(self, scores: NDArray[np.float32]) -> None:
        """Scores of further rows, shape (queries, rows)."""
        if not self.most:
            return
        better = scores > self._kept.min(axis=1, keepdims=True)
        few = _left(scores, better) if better.sum(axis=1).max(initial=0) < self.most else scores
        together = np.hstack([self._kept, few])
        place = together.shape[1] - self.most
        self._kept = np.partition(together, place, axis=1)[:, place:]

    def kth(self, k: int) -> Floor:
        """The k-th greatest score of each query, shape (queries,); k is at most `most`."""
        return np.sort(self._kept, axis=1)[:, self.most - k] if k else self._kept[:, :0].sum(axis=1)


def _left(scores: NDArray[np.float32], chosen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The chosen scores of each row moved to its left, as wide as the most of a row; else -inf."""
    counts = chosen.sum(axis=1)
    moved = np.full((len(scores), int(counts.max(initial=0))), -np.inf, dtype=np.float32)
    moved[np.arange(moved.shape[1]) < counts[:, np.newaxis]] = scores[chosen]
    return moved


def sample_queries(vectors: Rows, sample: int) -> Vectors:
    """Rows of the catalogue, each moved a little as another photo of the same thing would be."""
    random = np.random.default_rng(2024)
    chosen = random.permutation(len(vectors))[:sample]
    noise = random.standard_normal((len(chosen), vectors.shape[1]), dtype=np.float32)
    noise *= 0.5 / np.linalg.norm(noise, axis=1, keepdims=True)
    moved: Vectors = vectors[chosen].astype(np.float32) + noise
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    return moved
