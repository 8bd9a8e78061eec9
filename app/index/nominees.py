"""What an index nominates for a query, and how many rows it is searched for to nominate them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from app.index.faiss_library import one_thread
from app.index.id_selectors import ExcludedIds, Ids, IdSelector
from app.types import BuildPart, Vector, Vectors

MAX_SELECTED_MORE = 400
"""Nominees that a search among selected rows may have beyond those of other searches."""

SELECTED_MARGIN = {2: 0.11, 4: 0.03}
"""Among selected rows of a compressed index, by the bits of its code: how much less similar than
the last one that is wanted (cosine, by estimates) a further nominee may be. What passes a filter
may lie far from the query, where rows differ less than estimates err; near it, hardly any row is
within the margin."""


@dataclass(frozen=True, slots=True)
class Nominees:
    """Candidates of one query, best first.

    `ids` has shape (m,), int64. `cutoff` is the similarity (inner product, -1 to 1) at and below
    which rows were left out; None when every row of the index was nominated.

    An index of compressed vectors ranks by estimates, so its order and cutoff are not exact. Its
    claim is that its `known` most similar rows are anywhere among the ids; None: the cutoff holds.

    All that is claimed leaves out the rows of the parts in `missing`, which did not answer.
    """

    ids: Ids
    cutoff: float | None
    known: int | None = None
    missing: tuple[BuildPart, ...] = ()

    def among(self, selector: IdSelector) -> Nominees:
        """Those that are selected. As many of the `known` rows are taken to be among them as of the
        first so many nominees: rows that pass may all be farther away than those that are known.
        If there are no selected ones, nothing is claimed."""
        selected = selector.contains(self.ids)
        ids = self.ids[selected]
        if not len(ids):
            return Nominees(ids, None if self.cutoff is None else 1.0, missing=self.missing)
        known = None if self.known is None else int(selected[: self.known].sum())
        return Nominees(ids, self.cutoff, known, self.missing)

    def joined(self, ids: Ids, cutoff: float | None) -> Nominees:
        """With the rows of the missing parts that are most similar by exact similarity, at least as
        many as are `known` or all of them; at and below `cutoff` more were left out (None: none).

        The rows that are known stay so: each is among those of the other parts, or of these.
        """
        cutoffs = [each for each in (self.cutoff, cutoff) if each is not None]
        return Nominees(np.concatenate([self.ids, ids]), max(cutoffs, default=None), self.known)

    @property
    def seen_to(self) -> float | None:
        """The cutoff as a cosine distance (0 to 2)."""
        return None if self.cutoff is None else 1.0 - self.cutoff


Found = tuple[NDArray[np.float32], Ids, tuple[BuildPart, ...]]
"""Similarities and ids, each of shape (queries, k), missing ones with id -1; and the parts that did
not answer, whose rows are not among them."""


class NominatingIndex(ABC):
    """An index with its search parameters: a FAISS index in memory, or the parts of one.

    `kind` is one of `faiss_index.KINDS`.
    """

    __slots__ = ()

    kind: str
    parameters: Mapping[str, Any]

    @property
    @abstractmethod
    def rows(self) -> int:
        """Number of rows."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Numbers of a vector."""

    @abstractmethod
    def with_parameters(self, parameters: Mapping[str, Any]) -> Self:
        """The same index, searched with other parameters."""

    @abstractmethod
    def search(
        self,
        queries: Vectors,
        k: int,
        depth: int | None = None,
        *,
        selector: IdSelector | None = None,
        excluded: ExcludedIds | None = None,
    ) -> tuple[NDArray[np.float32], Ids]:
        """Similarities and ids, each of shape (len(queries), k); missing ones have id -1."""

    def found(
        self,
        queries: Vectors,
        k: int,
        depth: int | None = None,
        *,
        selector: IdSelector | None = None,
        excluded: ExcludedIds | None = None,
    ) -> Found:
        """`search`, where parts may be missing."""
        return *self.search(queries, k, depth, selector=selector, excluded=excluded), ()

    def has_vectors(self, selector: IdSelector | None) -> bool:
        """Whether a search with a selector compares vectors that were read from the table, not the
        codes of the index."""
        return False

    def nominate(
        self,
        query: Vector,
        n: int,
        depth: int | None = None,
        *,
        selector: IdSelector | None = None,
        excluded: ExcludedIds | None = None,
    ) -> Nominees:
        """The `n` rows most similar to a unit vector of shape (dim,), fewer if there are fewer.

        nprobe is the one tuned for recall@`depth` (default: `n`). With a `selector` the search is
        exhaustive among the selected rows. Compressed vectors nominate as many rows as `pool` says,
        if those are more, and know the `depth` most similar ones and a margin; with a `selector`
        also those that are hardly less similar, unless it `has_vectors`.

        `excluded` rows are passed over, and taken to be the most similar of all: the search is as
        thorough as one for the `depth` rows behind them too, but nominates none of them.
        """
        [nominees] = self.nominate_each(
            query[np.newaxis], n, depth, selector=selector, excluded=excluded
        )
        return nominees

    def nominate_each(
        self,
        queries: Vectors,
        n: int,
        depth: int | None = None,
        *,
        selector: IdSelector | None = None,
        excluded: ExcludedIds | None = None,
    ) -> list[Nominees]:
        """`nominate` for each of several unit vectors, (m, dim), in one search."""
        n, depth = min(n, self.rows), depth or n
        passed = len(excluded) if excluded else 0
        coarse = not self.has_vectors(selector)
        least = min(max(n, self.pool_behind(passed, depth) if coarse else 0), self.rows)
        more = MAX_SELECTED_MORE if selector and coarse and self.kind == "rabitq" else 0
        fetched = min(least + more, self.rows)
        with one_thread():
            similarities, ids, missing = self.found(
                queries, fetched, depth, selector=selector, excluded=excluded
            )
        margin = max(4, (depth + passed) // 4)
        every = [
            self._nominees(*row, n, depth, margin, least=least, selected=selector is not None)
            for row in zip(similarities, ids, strict=True)
        ]
        return [replace(each, missing=missing) for each in every] if missing else every

    def _nominees(
        self, similarities: NDArray[np.float32], ids: Ids, n: int, depth: int, margin: int,
        *, least: int, selected: bool,
    ) -> Nominees:  # fmt: skip
        """The nominees among what was fetched for a query, of which `least` are always taken, and
        `margin` more than `depth` are known."""
        fetched = len(ids)
        valid = ids != -1  # FAISS pads missing results with -1
        found = int(valid.sum())
        exhaustive = selected or self.kind == "flat"
        if exhaustive and (found < fetched or (not selected and n >= self.rows)):
            return Nominees(ids[valid], None)
        if fetched > least and selected and self.kind == "rabitq":
            valid &= self._is_near(similarities, depth) | (np.arange(fetched) < least)
        worst = float(similarities[valid].min()) if found else 1.0
        known = min(found, n, depth + margin) if self.kind == "rabitq" else None
        return Nominees(ids[valid], worst, known)

    def _is_near(self, similarities: NDArray[np.float32], depth: int) -> NDArray[np.bool_]:
        """Whether each row is hardly less similar than the one at `depth`; best first."""
        margin = SELECTED_MARGIN[int(self.parameters["bits"])]
        wanted = similarities[min(depth, len(similarities)) - 1]
        return np.asarray(similarities >= wanted - margin)

    def probed_share(self, depth: int, passed: int = 0) -> float:
        """The share (0 to 1) of the inverted lists that a search for recall@`depth` probes, behind
        so many rows that are passed over."""
        if self.kind == "flat":
            return 1.0
        return self._nprobe(_depth_behind(passed, depth)) / int(self.parameters["nlist"])

    def pool(self, depth: int) -> int:
        """How many rows to nominate so that the `depth` most similar are among them, with the
        recall that was tuned for; `depth` itself unless the vectors are compressed.

        Between the tuned depths it grows linearly, beyond the last in proportion.
        """
        tuned = {int(d): int(rows) for d, rows in self.parameters.get("pool", {}).items()}
        if not tuned:
            return depth
        deepest = max(tuned)
        if depth > deepest:
            return math.ceil(depth * tuned[deepest] / deepest)
        depths = sorted(tuned)
        return math.ceil(float(np.interp(depth, depths, [tuned[d] for d in depths])))

    def pool_behind(self, passed: int, depth: int) -> int:
        """The same behind so many rows that are passed over."""
        if not self.parameters.get("pool"):
            return depth
        return max(self.pool(depth), self.pool(_depth_behind(passed, depth)) - passed)

    def probes(self, depth: int, selector: IdSelector | None, excluded: ExcludedIds | None) -> int:
        """How many inverted lists a search for recall@`depth` behind the excluded rows probes; with
        a `selector` all."""
        if selector is not None:
            return int(self.parameters["nlist"])
        return self._nprobe(_depth_behind(len(excluded) if excluded else 0, depth))

    def _nprobe(self, depth: int) -> int:
        """That of the next tuned depth that is at least `depth`; all lists beyond the last."""
        sufficient = [n for d, n in self.parameters["nprobe"].items() if int(d) >= depth]
        return int(min(sufficient, default=self.parameters["nlist"]))


class TrainedIndex(NominatingIndex):
    """An index whose inverted lists can be looked at, to tune it."""

    __slots__ = ()

    @abstractmethod
    def centroids(self) -> Vectors:
        """The centroid of each inverted list, shape (lists, dim)."""

    @abstractmethod
    def lists_of(self, ids: Ids) -> NDArray[np.int64]:
        """The inverted list of each of these rows of the index, of any shape."""

    def ranks(self, queries: Vectors, lists: NDArray[np.int64]) -> NDArray[np.int64]:
        """The nprobe needed to reach each list: for `queries`, shape (n, dim), and the lists of
        each, shape (n, m). The nearest list has rank 1."""
        order = np.argsort(-(queries @ self.centroids().T), axis=1)
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.arange(1, order.shape[1] + 1)[np.newaxis], axis=1)
        return np.take_along_axis(ranks, lists, axis=1)


def _depth_behind(passed: int, depth: int) -> int:
    """The depth at which to search for `depth` rows behind those that are passed over: an eighth
    deeper, because the last rows of a depth are found less often than all of them."""
    return depth + passed + passed // 8
