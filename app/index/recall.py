"""recall@k of an index against exact search, and the choice of nprobe that reaches a goal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.index.embedding_reader import EmbeddingSnapshot
from app.index.faiss_index import DEPTHS, MIN_NPROBE, AnnIndex, IdSelector, deep_search_size
from app.types import EmbeddingRows, Vectors
from app.vectors import unit_rows

SAMPLE_SIZE = 400
"""Queries a build is measured with; the standard error of a recall of 0.99 is then 0.5 %."""

EPSILON = 1e-4
"""Cosine by which a row may be worse than the k-th best and still count as equal to it.

Inverted lists hold rows whose lengths are off by rounding, so among near-identical pictures they
rank some differently than exact search. Searches allow for more (`nearest.TOLERANCE`).
(ann-benchmarks uses 0.001.)"""

BLOCK_ROWS = 2048
"""Rows compared at a time, so that the scores of all rows are never in memory at once."""

FILTER_SHARES = (0.5, 0.2, 0.05)
"""Selectivities of the random filters that a build is measured with."""

FILTERED_QUERIES = 100
"""Queries per filter."""

FILTERED_DEPTH = 10
"""The k of the filtered recall."""

Scores = NDArray[np.float32]
"""Similarities, float32."""


class RecallBenchmark:
    """Queries with the exact similarities of their k nearest rows, to measure indexes of the rows.

    Up to half of the queries are `real` ones (unit vectors, shape (n, dim)), the rest perturbed
    pictures of the catalogue. A result counts as correct if it is at least as similar as the k-th
    nearest row, as in ann-benchmarks: among equally similar rows any is correct.

    The exact scan runs once, in blocks, for all `depths` (the k that can be measured) and, if
    `filtered`, for all FILTER_SHARES.
    """

    def __init__(
        self,
        snapshot: EmbeddingSnapshot,
        depths: Sequence[int] = (10,),
        *,
        real: Vectors | None = None,
        sample: int = SAMPLE_SIZE,
        filtered: bool = True,
    ) -> None:
        self._snapshot = snapshot
        no_queries = np.empty((0, snapshot.dim), np.float32)
        user_queries = no_queries if real is None else real[: sample // 2]
        sampled = sample_queries(snapshot.vectors, sample - len(user_queries))
        self.queries: Vectors = np.vstack([user_queries, sampled])
        shares = FILTER_SHARES if filtered else ()
        self._passing = {share: self._random_mask(share) for share in shares}
        self.floors, self._filtered_floors = self._exact(depths)
        self._order = np.argsort(snapshot.ids)
        self._ids = snapshot.ids[self._order]

    def recall(self, index: AnnIndex, depth: int = 10) -> float:
        """recall@k with k = `depth`, over all queries (0 to 1)."""
        k = min(depth, len(self._ids))
        if k == 0:
            return 1.0
        _, results = index.search(self.queries, k)
        return int(self._hits(self.queries, results, self.floors[depth]).sum()) / results.size

    def nprobe_needed(self, index: AnnIndex, depth: int, goal: float) -> int:
        """The nprobe (number of nearest inverted lists) with which the probed lists contain a share
        `goal` (0 to 1) of the `depth` nearest rows, over all queries."""
        nearest = self._nearest[:, :depth]
        positions, inverse = np.unique(nearest, return_inverse=True)
        lists = index.lists_of(self._snapshot.vectors, positions)[inverse.reshape(nearest.shape)]
        ranks = np.sort(index.ranks(self.queries, lists), axis=None)
        return int(ranks[math.ceil(goal * ranks.size) - 1])

    def filtered_recall(self, index: AnnIndex) -> float:
        """Mean recall@10 (0 to 1) under random filters with the selectivities FILTER_SHARES.

        Queries take the same steps as `search.planner`: a deeper unfiltered search first, then one
        with an id selector if too few of its rows pass the filter.
        """
        recalls = [self._filtered(index, share) for share in self._passing if len(self._ids)]
        return float(np.mean(recalls)) if recalls else 1.0

    def _filtered(self, index: AnnIndex, share: float) -> float:
        passing_ids = self._snapshot.ids[self._passing[share]]
        k = min(FILTERED_DEPTH, len(passing_ids))
        if k == 0:
            return 1.0
        queries, floors = self.queries[:FILTERED_QUERIES], self._filtered_floors[share]
        n, depth = deep_search_size(k + 16, k, share)
        _, ids = index.search(queries, min(n, index.rows), depth)
        ids = np.where(np.isin(ids, passing_ids), ids, -1)
        hits = self._hits(queries, ids, floors)
        short = (ids != -1).sum(axis=1) < k
        if short.any():
            _, ids = index.search(queries[short], k, selector=IdSelector(passing_ids))
            hits[short] = self._hits(queries[short], ids, floors[short])
        return int(np.minimum(hits, k).sum()) / (k * len(queries))

    def _random_mask(self, share: float) -> NDArray[np.bool_]:
        """The rows that pass a random filter, shape (n,); always the same for the same share."""
        return np.random.default_rng(round(1e6 * share)).random(len(self._snapshot.ids)) < share

    def _exact(self, depths: Sequence[int]) -> tuple[dict[int, Scores], dict[float, Scores]]:
        """The similarity of the k-th nearest row of each query, less EPSILON: by depth, and among
        the rows that pass the filter by share."""
        rows, filtered_queries = len(self._snapshot.ids), len(self.queries[:FILTERED_QUERIES])
        best = TopK(len(self.queries), min(max(depths), rows))
        filtered = {
            share: TopK(filtered_queries, min(FILTERED_DEPTH, int(passes.sum())))
            for share, passes in self._passing.items()
        }
        for begin in range(0, rows, BLOCK_ROWS):
            block = slice(begin, begin + BLOCK_ROWS)
            scores = self.queries @ unit_rows(self._snapshot.vectors[block]).T
            best.offer(scores, begin)
            for share, top in filtered.items():
                top.offer(scores[:FILTERED_QUERIES, self._passing[share][block]], 0)
        similarities, self._nearest = best.nearest()
        return (
            {depth: similarities[:, min(depth, rows) - 1] - EPSILON for depth in depths if rows},
            {
                share: top.nearest()[0][:, -1] - EPSILON
                for share, top in filtered.items()
                if top.size
            },
        )

    def _hits(self, queries: Vectors, ids: NDArray[np.int64], floors: Scores) -> NDArray[np.int64]:
        """How many of the `ids`, shape (queries, k), are at least as similar as the floor of their
        query, by query; ids that do not exist (FAISS's -1) are not."""
        hits = np.zeros(len(queries), dtype=np.int64)
        step = max(1, BLOCK_ROWS // max(1, ids.shape[1]))
        for begin in range(0, len(queries), step):
            part = slice(begin, begin + step)
            similarities = self._similarities(queries[part], ids[part])
            hits[part] = (similarities >= floors[part, np.newaxis]).sum(axis=1)
        return hits

    def _similarities(self, queries: Vectors, ids: NDArray[np.int64]) -> Scores:
        """Exact similarities of ids, shape (queries, k); -inf for ids that do not exist."""
        positions = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        rows = unit_rows(self._snapshot.vectors[self._order[positions.ravel()]])
        similarities = np.einsum("qkd,qd->qk", rows.reshape(*ids.shape, -1), queries)
        return np.where(self._ids[positions] == ids, similarities, -np.inf).astype(np.float32)


class TopK:
    """The `size` greatest scores of each query, with their row positions, over many blocks."""

    def __init__(self, n_queries: int, size: int) -> None:
        self.size = size
        self._scores = np.full((n_queries, size), -np.inf, dtype=np.float32)
        self._positions = np.zeros((n_queries, size), dtype=np.int64)

    def offer(self, scores: Scores, begin: int) -> None:
        """Add a block of scores, shape (queries, rows), whose first row has position `begin`."""
        if not self.size:
            return
        better = scores > self._scores.min(axis=1, keepdims=True)
        if better.sum(axis=1).max(initial=0) > 4 * self.size:
            better = _top_mask(scores, self.size)
        candidates, columns = _compacted(scores, better)
        merged = np.hstack([self._scores, candidates])
        positions = np.hstack([self._positions, begin + columns])
        chosen = np.argpartition(merged, -self.size, axis=1)[:, -self.size :]
        self._scores = np.take_along_axis(merged, chosen, axis=1)
        self._positions = np.take_along_axis(positions, chosen, axis=1)

    def nearest(self) -> tuple[Scores, NDArray[np.int64]]:
        """Scores and positions, each of shape (queries, size), greatest first."""
        order = np.argsort(-self._scores, axis=1, kind="stable")
        return (
            np.take_along_axis(self._scores, order, axis=1),
            np.take_along_axis(self._positions, order, axis=1),
        )


def _top_mask(scores: Scores, size: int) -> NDArray[np.bool_]:
    """Mask of the `size` greatest scores of each row, with ties of the last one."""
    smallest = np.partition(scores, -size, axis=1)[:, -size]
    mask: NDArray[np.bool_] = scores >= smallest[:, np.newaxis]
    return mask


def _compacted(scores: Scores, chosen: NDArray[np.bool_]) -> tuple[Scores, NDArray[np.int64]]:
    """The chosen scores of each row and their columns, moved to the left and padded with -inf."""
    counts = chosen.sum(axis=1)
    shape = (len(scores), int(counts.max(initial=0)))
    taken = np.arange(shape[1]) < counts[:, np.newaxis]
    moved, columns = np.full(shape, -np.inf, dtype=np.float32), np.zeros(shape, dtype=np.int64)
    moved[taken], columns[taken] = scores[chosen], np.nonzero(chosen)[1]
    return moved, columns


def sample_queries(vectors: EmbeddingRows, sample: int) -> Vectors:
    """Random rows of the catalogue with noise added, like other photos of the same product; unit
    vectors, shape (sample, dim). Always the same for the same rows."""
    random = np.random.default_rng(2024)
    chosen = random.permutation(len(vectors))[:sample]
    noise = random.standard_normal((len(chosen), vectors.shape[1]), dtype=np.float32)
    noise *= 0.5 / np.linalg.norm(noise, axis=1, keepdims=True)
    moved: Vectors = vectors[chosen].astype(np.float32) + noise
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    return moved


class RecallMeasure(Protocol):
    """The part of RecallBenchmark that `tune` needs."""

    def nprobe_needed(self, index: AnnIndex, depth: int, goal: float) -> int:
        """The nprobe at which the probed lists contain a share `goal` of the `depth` nearest."""

    def recall(self, index: AnnIndex, depth: int) -> float:
        """recall@`depth` (0 to 1)."""


def tune(index: AnnIndex, measure: RecallMeasure, goal: float) -> AnnIndex:
    """The same index with the smallest nprobe per depth that reaches the recall goal (0 to 1).

    The search starts at the nprobe for a goal halfway to 1, because other queries do a little worse
    than the sample. A greater depth never gets a smaller nprobe. Beyond the last depth, and where
    no smaller nprobe reaches the goal, all lists are probed.
    """
    if index.kind != "ivf":
        return index
    nlist, by_depth = index.faiss_index.nlist, dict[str, int]()
    for depth in DEPTHS:
        smallest = max(by_depth.values(), default=MIN_NPROBE)
        nprobe = max(smallest, measure.nprobe_needed(index, depth, (1 + goal) / 2))
        while nprobe < nlist and measure.recall(_with_nprobe(index, nprobe, depth), depth) < goal:
            nprobe += max(nprobe // 4, 1)
        by_depth[str(depth)] = min(nprobe, nlist)
    return AnnIndex(index.faiss_index, "ivf", {"nlist": nlist, "nprobe": by_depth})


def _with_nprobe(index: AnnIndex, nprobe: int, depth: int) -> AnnIndex:
    parameters = {"nlist": index.faiss_index.nlist, "nprobe": {str(depth): nprobe}}
    return AnnIndex(index.faiss_index, "ivf", parameters)
