"""recall@k: the share of the exact nearest rows that an index finds too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.index.embedding_reader import EmbeddingSnapshot
from app.index.faiss_index import DEPTHS, LEAST_LISTS, AnnIndex, IdSelector, deep_search_size
from app.types import EmbeddingRows, Vector, Vectors
from app.vectors import unit_rows

SAMPLE = 400
"""Queries a build is measured with: recall 0.99 is then known to about half a percent."""


EPSILON = 1e-4
"""Cosine by which a row may be worse than the k-th best and still count as equal to it.

Inverted lists hold rows whose lengths are off by rounding, so among many pictures that are nearly
the same they nominate others than the very nearest. Searches know: `ranking.TOLERANCE` is more.
(ann-benchmarks takes 0.001.)"""


BLOCK = 2048
"""Rows compared at a time; the scores of a million rows never stand in memory at once."""


SHARES = (0.5, 0.2, 0.05)
"""Shares of the rows that pass the filters a build is measured with."""


FILTERED = 100
"""Queries a build is measured with for each of them."""


FILTERED_DEPTH = 10


Floor = NDArray[np.float32]
"""The least similarity that counts, of each query."""


class RecallBenchmark:
    """Queries with the similarities of their nearest rows, to measure indexes of one content.

    Half of them, where there are enough, are `real` queries (unit vectors, shape (n, dim)), the
    rest pictures of the catalogue. A row that was found counts if it is as near as the k-th
    nearest, as ann-benchmarks counts: of rows that are equally near, any is right.

    The rows are read once, in blocks, for all `depths` (the k that can be measured) and, if
    `filtered`, for all `SHARES`.
    """

    def __init__(
        self,
        content: EmbeddingSnapshot,
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

    def lists(self, index: AnnIndex, depth: int, goal: float) -> int:
        """In how many inverted lists, of those nearest to a query, a share `goal` (0 to 1) of the
        `depth` nearest rows lies."""
        nearest = self._nearest[:, :depth]
        places, back = np.unique(nearest, return_inverse=True)
        lists = index.lists_of(self._content.vectors, places)[back.reshape(nearest.shape)]
        ranks = np.sort(index.ranks(self.queries, lists), axis=None)
        return int(ranks[math.ceil(goal * ranks.size) - 1])

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
        queries, only, hits = self.queries[:FILTERED], IdSelector(allowed), 0
        for query, least in zip(queries, self._filtered_floors[share], strict=True):
            got = index.nominate(query, *deep_search_size(k + 16, k, share)).ids
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
        best = TopK(len(self.queries), min(max(depths), rows))
        passing = {
            share: TopK(len(self.queries[:FILTERED]), min(FILTERED_DEPTH, int(passes.sum())))
            for share, passes in self._passing.items()
        }
        for begin in range(0, rows, BLOCK):
            block = unit_rows(self._content.vectors[begin : begin + BLOCK])
            scores = self.queries @ block.T
            best.offer(scores, begin)
            for share, kept in passing.items():
                kept.offer(scores[:FILTERED, self._passing[share][begin : begin + BLOCK]], 0)
        found, self._nearest = best.nearest()
        return (
            {depth: found[:, min(depth, rows) - 1] - EPSILON for depth in depths if rows},
            {
                share: kept.nearest()[0][:, -1] - EPSILON
                for share, kept in passing.items()
                if kept.most
            },
        )

    def _similarities(self, query: Vector, found: NDArray[np.int64]) -> NDArray[np.float32]:
        """Exact similarities of ids, shape (k,); -inf for what an index did not find."""
        places = np.minimum(np.searchsorted(self._ids, found), len(self._ids) - 1)
        rows = unit_rows(self._content.vectors[self._order[places]])
        return np.where(self._ids[places] == found, rows @ query, -np.inf).astype(np.float32)


class TopK:
    """The `most` greatest scores of each query among all that were offered, and their places."""

    def __init__(self, queries: int, most: int) -> None:
        self.most = most
        self._scores = np.full((queries, most), -np.inf, dtype=np.float32)
        self._places = np.zeros((queries, most), dtype=np.int64)

    def offer(self, scores: Floor, begin: int) -> None:
        """Scores of further rows, shape (queries, rows), whose places begin there."""
        if not self.most:
            return
        better = scores > self._scores.min(axis=1, keepdims=True)
        if better.sum(axis=1).max(initial=0) > 4 * self.most:
            better = _greatest(scores, self.most)
        some, columns = _left(scores, better)
        together = np.hstack([self._scores, some])
        places = np.hstack([self._places, begin + columns])
        chosen = np.argpartition(together, -self.most, axis=1)[:, -self.most :]
        self._scores = np.take_along_axis(together, chosen, axis=1)
        self._places = np.take_along_axis(places, chosen, axis=1)

    def nearest(self) -> tuple[Floor, NDArray[np.int64]]:
        """The scores and the places, each of shape (queries, most), the greatest first."""
        order = np.argsort(-self._scores, axis=1, kind="stable")
        scores, places = self._scores, self._places
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(places, order, axis=1)


def _greatest(scores: Floor, most: int) -> NDArray[np.bool_]:
    """Which are the `most` greatest of each row, and those that are equal to the last of them."""
    least = np.partition(scores, -most, axis=1)[:, -most]
    found: NDArray[np.bool_] = scores >= least[:, np.newaxis]
    return found


def _left(scores: Floor, chosen: NDArray[np.bool_]) -> tuple[Floor, NDArray[np.int64]]:
    """The chosen scores of each row, and their columns, moved to the left; -inf where none is."""
    counts = chosen.sum(axis=1)
    shape = (len(scores), int(counts.max(initial=0)))
    taken = np.arange(shape[1]) < counts[:, np.newaxis]
    moved, columns = np.full(shape, -np.inf, dtype=np.float32), np.zeros(shape, dtype=np.int64)
    moved[taken], columns[taken] = scores[chosen], np.nonzero(chosen)[1]
    return moved, columns


def sample_queries(vectors: EmbeddingRows, sample: int) -> Vectors:
    """Rows of the catalogue, each moved a little as another photo of the same thing would be."""
    random = np.random.default_rng(2024)
    chosen = random.permutation(len(vectors))[:sample]
    noise = random.standard_normal((len(chosen), vectors.shape[1]), dtype=np.float32)
    noise *= 0.5 / np.linalg.norm(noise, axis=1, keepdims=True)
    moved: Vectors = vectors[chosen].astype(np.float32) + noise
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    return moved


class RecallMeasure(Protocol):
    """What an index is measured with; `recall.Yardstick` is one."""

    def lists(self, index: AnnIndex, depth: int, goal: float) -> int:
        """In how many lists, of those nearest to a query, so much of the nearest rows lies."""

    def recall(self, index: AnnIndex, depth: int) -> float:
        """The share of the `depth` nearest rows that the index finds (0 to 1)."""


def tuned(index: AnnIndex, measure: RecallMeasure, goal: float) -> AnnIndex:
    """The same index with, for each depth, the fewest lists to look into that reach the goal.

    What is aimed at leaves out half of what the goal allows, as other queries are a little worse
    off than those it was measured with. Deeper answers need a wider search. Beyond the last depth,
    and where nothing less reaches the goal, all lists are looked into.
    """
    if index.kind != "ivf":
        return index
    nlist, found = index.faiss_index.nlist, dict[str, int]()
    for depth in DEPTHS:
        least = max(found.values(), default=LEAST_LISTS)
        lists = max(least, measure.lists(index, depth, (1 + goal) / 2))
        while lists < nlist and measure.recall(_looking_into(index, lists, depth), depth) < goal:
            lists += max(lists // 4, 1)
        found[str(depth)] = min(lists, nlist)
    return AnnIndex(index.faiss_index, "ivf", {"nlist": nlist, "nprobe": found})


def _looking_into(index: AnnIndex, lists: int, depth: int) -> AnnIndex:
    parameters = {"nlist": index.faiss_index.nlist, "nprobe": {str(depth): lists}}
    return AnnIndex(index.faiss_index, "ivf", parameters)
