"""recall@k of an index against exact search, and the choice of nprobe that reaches a goal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.index.embedding_reader import BLOCK_ROWS, Embeddings, random_mask, sample_rows
from app.index.faiss_index import DEPTHS, MIN_NPROBE, deep_search_size
from app.index.id_selectors import Ids, IdSelector
from app.index.nominees import NominatingIndex, TrainedIndex
from app.types import EmbeddingRows, Vectors
from app.vectors import unit_rows

SURPLUS = 56
"""Exact answers that are kept beyond the deepest k, so that rows about as similar as the k-th are
among them."""

SAMPLE_SIZE = 400
"""Queries a build is measured with; the standard error of a recall of 0.99 is then 0.5 %."""

POOL_FACTOR = 10
"""The largest number of nominees that is tried, as a multiple of k."""

NOISE = 0.5
"""Length of the noise that makes a query of a picture, whose vector has length 1."""

EPSILON = 1e-4
"""Cosine by which a row may be worse than the k-th best and still count as equal to it.

Inverted lists hold rows whose lengths are off by rounding, so among near-identical pictures they
rank some differently than exact search. Searches allow for more (`nearest.TOLERANCE`).
(ann-benchmarks uses 0.001.)"""

FILTER_SHARES = (0.5, 0.2, 0.05)
"""Selectivities of the random filters that a build is measured with."""

FILTERED_QUERIES = 100
"""Queries per filter."""

FILTERED_DEPTH = 10
"""The k of the filtered recall."""

Scores = NDArray[np.float32]
"""Similarities, float32."""


@dataclass(frozen=True, slots=True)
class ExactAnswers:
    """The nearest rows of each query, nearest first: ids and similarities, shape (queries, m).

    A row that is not among them is no more similar than the last; `whole` if there is no such row.
    """

    ids: Ids
    similarities: Scores
    whole: bool

    def floors(self, k: int) -> Scores:
        """The similarity of the k-th nearest row of each query, less EPSILON."""
        return self.similarities[:, min(k, self.similarities.shape[1]) - 1] - EPSILON


class SearchedIndex(Protocol):
    """The part of an index that `RecallBenchmark.recall` needs, as that of `AnnIndex`."""

    @property
    def rows(self) -> int:
        """Number of rows."""

    def pool(self, depth: int) -> int:
        """How many rows to nominate so that the `depth` most similar are among them."""

    def search(self, queries: Vectors, k: int, depth: int | None = None) -> tuple[object, Ids]:
        """Anything, and the ids found, (len(queries), k), missing ones -1."""


class RecallBenchmark:
    """Queries with their nearest rows by exact similarity, to measure indexes of the rows.

    Up to half of the queries are `real` ones (unit vectors, shape (n, dim)), the rest `pictures` of
    the catalogue, shape (m, dim), with `noise` added. A result counts as correct if it is at least
    as similar as the k-th nearest row, as in ann-benchmarks: among equally similar rows any is
    correct. What an index nominates is counted as searches use it: PostgreSQL orders the nominees
    by exact similarity, so the first k of them are the result.

    The rows are read once, in blocks, for all `depths` (the k that can be measured) and, if
    `filtered`, for all FILTER_SHARES.
    """

    def __init__(
        self,
        source: Embeddings,
        depths: Sequence[int] = (10,),
        *,
        pictures: EmbeddingRows | None = None,
        real: Vectors | None = None,
        sample: int = SAMPLE_SIZE,
        filtered: bool = True,
        noise: float = NOISE,
    ) -> None:
        self._source = source
        no_queries = np.empty((0, source.dim), np.float32)
        user_queries = no_queries if real is None else real[: sample // 2]
        if pictures is None:
            pictures = sample_rows(source, 2 * sample)
        sampled = sample_queries(pictures, sample - len(user_queries), noise)
        self.queries: Vectors = np.vstack([user_queries, sampled])
        self._exact, self._filtered_exact = self._read(
            max(depths), FILTER_SHARES if filtered else ()
        )

    def nearest_rows(self) -> Iterator[tuple[Ids, EmbeddingRows]]:
        """The rows nearest to the queries, the deepest k and SURPLUS more of each, in blocks as
        those of `Embeddings`; each row once."""
        ids = np.unique(self._exact.ids)
        for begin in range(0, len(ids), BLOCK_ROWS):
            part = ids[begin : begin + BLOCK_ROWS]
            yield part, unit_rows(self._source.vectors_of(part))

    def recall(self, index: SearchedIndex, depth: int = 10) -> float:
        """recall@k with k = `depth`, over all queries (0 to 1)."""
        k = min(depth, self._source.rows)
        if k == 0:
            return 1.0
        _, ids = index.search(self.queries, min(index.pool(k), index.rows), k)
        found = self._hits(self.queries, ids, self._exact, k).sum(axis=1)
        return int(np.minimum(found, k).sum()) / (k * len(self.queries))

    def recall_by_pool(self, index: NominatingIndex, depth: int, nprobe: int, most: int) -> Scores:
        """recall@`depth` with 1, 2, … `most` nominees from `nprobe` lists, shape (most,)."""
        k, most = min(depth, self._source.rows), min(most, index.rows)
        _, ids = with_nprobe(index, nprobe, depth).search(self.queries, most, depth)
        hits = np.cumsum(self._hits(self.queries, ids, self._exact, k), axis=1)
        recalls: Scores = np.minimum(hits, k).mean(axis=0) / k
        return recalls

    def nprobe_needed(self, index: TrainedIndex, depth: int, goal: float) -> int:
        """The nprobe (number of nearest inverted lists) with which the probed lists contain a share
        `goal` (0 to 1) of the `depth` nearest rows, over all queries."""
        lists = index.lists_of(self._exact.ids[:, :depth])
        ranks = np.sort(index.ranks(self.queries, lists), axis=None)
        return int(ranks[math.ceil(goal * ranks.size) - 1])

    def filtered_recall(self, index: NominatingIndex) -> float:
        """Mean recall@10 (0 to 1) under random filters with the selectivities FILTER_SHARES.

        Queries take the same steps as `search.planner`: a deeper unfiltered search first, then one
        with an id selector if too few of its rows pass the filter.
        """
        recalls = [self._filtered(index, share) for share in self._filtered_exact]
        return float(np.mean(recalls)) if recalls else 1.0

    def _filtered(self, index: NominatingIndex, share: float) -> float:
        exact = self._filtered_exact[share]
        k: int = min(FILTERED_DEPTH, exact.ids.shape[1])
        queries = self.queries[:FILTERED_QUERIES]
        if k == 0:
            return 1.0
        n, depth = deep_search_size(k + 16, k, share)
        fetched = min(max(n, index.pool(depth)), index.rows)
        _, ids = index.search(queries, fetched, depth)
        ids = np.where(_passes(ids, share), ids, -1)
        hits = self._hits(queries, ids, exact, k).sum(axis=1)
        short = (ids != -1).sum(axis=1) < k
        if short.any():
            selector = IdSelector(self._ids[_passes(self._ids, share)])
            found = [each.ids for each in index.nominate_each(queries[short], k, selector=selector)]
            ids = np.full((len(found), max(map(len, found))), -1, np.int64)
            for row, nominated in enumerate(found):
                ids[row, : len(nominated)] = nominated
            part = ExactAnswers(exact.ids[short], exact.similarities[short], exact.whole)
            hits[short] = self._hits(queries[short], ids, part, k).sum(axis=1)
        return int(np.minimum(hits, k).sum()) / (k * len(queries))

    def _read(
        self, depth: int, shares: Sequence[float]
    ) -> tuple[ExactAnswers, dict[float, ExactAnswers]]:
        """The nearest rows of all queries, and of the first ones among the rows that pass."""
        filtered_queries = self.queries[:FILTERED_QUERIES]
        best = TopK(len(self.queries), depth + SURPLUS)
        filtered = {
            share: TopK(len(filtered_queries), FILTERED_DEPTH + SURPLUS) for share in shares
        }
        all_ids = []
        for ids, vectors in self._source.blocks():
            scores = self.queries @ unit_rows(vectors).T
            best.offer(scores, ids)
            for share, top in filtered.items():
                passing = _passes(ids, share)
                top.offer(scores[: len(filtered_queries), passing], ids[passing])
            all_ids.append(ids)
        self._ids = np.concatenate(all_ids) if all_ids else np.empty(0, np.int64)
        return best.answers(), {share: top.answers() for share, top in filtered.items()}

    def _hits(self, queries: Vectors, ids: Ids, exact: ExactAnswers, k: int) -> NDArray[np.bool_]:
        """Which of the `ids`, shape (queries, m), are at least as similar as the k-th nearest row
        of their query; FAISS's -1 is not."""
        floors = exact.floors(k)
        hits = np.zeros(ids.shape, bool)
        for row, floor in enumerate(floors):
            near = exact.similarities[row] >= floor
            hits[row] = np.isin(ids[row], exact.ids[row, near])
            if near.all() and not exact.whole:
                # So many rows are as similar that not all of them are known.
                unknown = ~hits[row] & (ids[row] != -1)
                vectors = unit_rows(self._source.vectors_of(ids[row, unknown]))
                hits[row, unknown] = vectors @ queries[row] >= floor
        return hits


def _passes(ids: Ids, share: float) -> NDArray[np.bool_]:
    """Which ids, of any shape, pass the random filter of a share; -1 does not."""
    passing: NDArray[np.bool_] = random_mask(ids, share, seed=round(1e6 * share)) & (ids != -1)
    return passing


class TopK:
    """The `size` greatest scores of each query, with the ids of their rows, over many blocks."""

    def __init__(self, n_queries: int, size: int) -> None:
        self._size = size
        self._rows = 0
        self._scores = np.full((n_queries, size), -np.inf, dtype=np.float32)
        self._ids = np.full((n_queries, size), -1, dtype=np.int64)

    def offer(self, scores: Scores, ids: Ids) -> None:
        """Add a block of scores, shape (queries, rows), of the rows `ids`, shape (rows,)."""
        self._rows += len(ids)
        better = scores > self._scores.min(axis=1, keepdims=True)
        if better.sum(axis=1).max(initial=0) > 4 * self._size:
            better = _top_mask(scores, self._size)
        candidates, columns = _compacted(scores, better)
        merged = np.hstack([self._scores, candidates])
        merged_ids = np.hstack([self._ids, ids[columns]]) if len(ids) else self._ids
        chosen = np.argpartition(merged, -self._size, axis=1)[:, -self._size :]
        self._scores = np.take_along_axis(merged, chosen, axis=1)
        self._ids = np.take_along_axis(merged_ids, chosen, axis=1)

    def answers(self) -> ExactAnswers:
        """The scores and ids of each query, greatest first, as many as there were rows at most."""
        order = np.argsort(-self._scores, axis=1, kind="stable")[:, : self._rows]
        return ExactAnswers(
            np.take_along_axis(self._ids, order, axis=1),
            np.take_along_axis(self._scores, order, axis=1),
            self._rows <= self._size,
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


def sample_queries(vectors: EmbeddingRows, sample: int, length: float = NOISE) -> Vectors:
    """Random rows of the catalogue with noise of this length added, like other photos of the same
    product; unit vectors, shape (sample, dim). Always the same for the same rows."""
    random = np.random.default_rng(2024)
    chosen = random.permutation(len(vectors))[:sample]
    noise = random.standard_normal((len(chosen), vectors.shape[1]), dtype=np.float32)
    noise *= length / np.linalg.norm(noise, axis=1, keepdims=True)
    moved: Vectors = vectors[chosen].astype(np.float32) + noise
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    return moved


Searched = TypeVar("Searched", bound=NominatingIndex)
Tuned = TypeVar("Tuned", bound=TrainedIndex)


class RecallMeasure(Protocol):
    """The part of RecallBenchmark that `tune` needs."""

    def nprobe_needed(self, index: TrainedIndex, depth: int, goal: float) -> int:
        """The nprobe at which the probed lists contain a share `goal` of the `depth` nearest."""

    def recall(self, index: NominatingIndex, depth: int) -> float:
        """recall@`depth` (0 to 1)."""

    def recall_by_pool(self, index: NominatingIndex, depth: int, nprobe: int, most: int) -> Scores:
        """recall@`depth` by the number of nominees, 1 to `most`."""


def tune(
    index: Tuned, measure: RecallMeasure, goal: float, max_pool: int | None = None
) -> Tuned | None:
    """The same index with the smallest nprobe per depth that reaches the recall goal (0 to 1), and
    if its vectors are compressed, the smallest number of nominees (`pool`).

    The search starts at the nprobe for a goal halfway to 1, because other queries do a little worse
    than the sample. A greater depth never gets a smaller nprobe. Beyond the last depth, and where
    no smaller nprobe reaches the goal, all lists are probed.

    None if the nearest of the first depth need more than `max_pool` nominees: each further depth
    would take as long.
    """
    if index.kind == "flat":
        return index
    nlist, by_depth, pool = index.parameters["nlist"], dict[str, int](), dict[str, int]()
    for depth in DEPTHS:
        smallest = max(by_depth.values(), default=MIN_NPROBE)
        nprobe = min(max(smallest, _first_nprobe(index, measure, depth, goal)), nlist)
        if index.kind == "rabitq":
            pool[str(depth)] = _smallest_pool(index, measure, depth, nprobe, goal, max_pool)
            if max_pool is not None and pool[str(DEPTHS[0])] > max_pool:
                return None
        else:
            while (
                nprobe < nlist and measure.recall(with_nprobe(index, nprobe, depth), depth) < goal
            ):
                nprobe = min(nprobe + max(nprobe // 4, 1), nlist)
        by_depth[str(depth)] = nprobe
    parameters = {**index.parameters, "nprobe": by_depth} | ({"pool": pool} if pool else {})
    return index.with_parameters(parameters)


def smallest_pool(
    index: TrainedIndex, measure: RecallMeasure, depth: int, goal: float, max_pool: int
) -> int:
    """The number of nominees that `tune` would choose for a depth; more than `max_pool` stand for
    any greater number."""
    nprobe = max(MIN_NPROBE, _first_nprobe(index, measure, depth, goal))
    nprobe = min(nprobe, int(index.parameters["nlist"]))
    return _smallest_pool(index, measure, depth, nprobe, goal, max_pool)


def _first_nprobe(index: TrainedIndex, measure: RecallMeasure, depth: int, goal: float) -> int:
    """The nprobe for a goal halfway to 1."""
    return measure.nprobe_needed(index, depth, (1 + goal) / 2)


def _smallest_pool(
    index: TrainedIndex,
    measure: RecallMeasure,
    depth: int,
    nprobe: int,
    goal: float,
    max_pool: int | None = None,
) -> int:
    """The number of nominees that reaches halfway from the goal to what these lists can reach, as
    with the lists; one more than were tried if none does. Tried are POOL_FACTOR * `depth`, at every
    depth as many more as `max_pool` allows at the first.

    FAISS skips vectors by a first estimate that it compares with the best k, so a search for fewer
    nominees finds less than the first ones of a search for more: what is chosen is searched again.
    """
    most = POOL_FACTOR * depth + max(0, (max_pool or 0) - POOL_FACTOR * DEPTHS[0])
    recalls = measure.recall_by_pool(index, depth, nprobe, most)
    target = (goal + recalls[-1]) / 2
    pool = 1 + int(np.searchsorted(recalls, target))
    while pool <= most and measure.recall_by_pool(index, depth, nprobe, pool)[-1] < target:
        pool += max(pool // 5, 1)
    return min(pool, most + 1)


def with_nprobe(index: Searched, nprobe: int, depth: int) -> Searched:
    """The same index with this nprobe up to this depth."""
    parameters = {**index.parameters, "nprobe": {str(depth): nprobe}}
    return index.with_parameters(parameters)
