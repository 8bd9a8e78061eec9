"""PartedIndex: an index in parts by picture id, which are searched separately and merged.

All parts have the same centroids, code and parameters, so a row has the same similarity as in an
index that holds all rows, and the nearest of all parts together are those of that index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.index.faiss_index import AnnIndex
from app.index.id_selectors import ExcludedIds, Ids, IdSelector
from app.index.nominees import Found, NominatingIndex
from app.types import BuildPart, Vectors

PartAnswer = tuple[NDArray[np.float32], Ids]
"""Similarities and ids that a part has found, each of shape (queries, m); missing ones have
id -1."""


class PartSearcher(Protocol):
    """Searches the parts of an index, here or elsewhere."""

    def search_parts(
        self, queries: Vectors, k: int, nprobe: int,
        selector: IdSelector | None, excluded: ExcludedIds | None,
    ) -> Sequence[PartAnswer | None]:  # fmt: skip
        """What each part finds among its `nprobe` nearest lists, up to `k` rows a query; None for a
        part that did not answer."""


class PartedIndex(NominatingIndex):
    """The parts of an index; `kind` is that of each part."""

    __slots__ = ("_dim", "kind", "parameters", "parts", "searcher")

    def __init__(
        self, kind: str, dim: int, parameters: Mapping[str, Any],
        parts: Sequence[BuildPart], searcher: PartSearcher,
    ) -> None:  # fmt: skip
        """`parameters` are those of an index in inverted lists."""
        self.kind, self.parameters, self._dim = kind, parameters, dim
        self.parts, self.searcher = tuple(parts), searcher

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def dim(self) -> int:
        return self._dim

    def with_parameters(self, parameters: Mapping[str, Any]) -> PartedIndex:
        """The same parts, searched with other parameters."""
        return PartedIndex(self.kind, self._dim, parameters, self.parts, self.searcher)

    def search(
        self,
        queries: Vectors,
        k: int,
        depth: int | None = None,
        *,
        selector: IdSelector | None = None,
        excluded: ExcludedIds | None = None,
    ) -> PartAnswer:
        """Similarities and ids, each of shape (len(queries), k); missing ones have id -1."""
        similarities, ids, _ = self.found(queries, k, depth, selector=selector, excluded=excluded)
        return similarities, ids

    def found(
        self,
        queries: Vectors,
        k: int,
        depth: int | None = None,
        *,
        selector: IdSelector | None = None,
        excluded: ExcludedIds | None = None,
    ) -> Found:
        """The same, and the parts that did not answer."""
        if k == 0:
            return *merged([], len(queries), 0), ()
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        nprobe = self.probes(depth or k, selector, excluded)
        answers = self.searcher.search_parts(queries, k, nprobe, selector, excluded)
        answered = [answer for answer in answers if answer is not None]
        missing = tuple(
            part for part, answer in zip(self.parts, answers, strict=True) if answer is None
        )
        return *merged(answered, len(queries), k), missing


class LocalParts:
    """Searches parts in the memory of this process, one after the other."""

    def __init__(self, indexes: Sequence[AnnIndex]) -> None:
        self._indexes = indexes

    def search_parts(
        self, queries: Vectors, k: int, nprobe: int,
        selector: IdSelector | None, excluded: ExcludedIds | None,
    ) -> list[PartAnswer | None]:  # fmt: skip
        """What each part finds."""
        return [
            index.search_lists(queries, min(k, index.rows), nprobe, selector, excluded)
            for index in self._indexes
        ]


def merged(answers: Sequence[PartAnswer], queries: int, k: int) -> PartAnswer:
    """The `k` best rows of each query among the answers of all parts, each of shape (queries, k);
    of equally similar rows those with the smaller ids."""
    similarities = np.full((queries, k), -np.inf, np.float32)
    ids = np.full((queries, k), -1, np.int64)
    if not answers:
        return similarities, ids
    every = np.hstack([answer[1] for answer in answers])
    scores = np.where(every == -1, -np.inf, np.hstack([answer[0] for answer in answers]))
    best = np.lexsort((every, -scores), axis=1)[:, :k]
    similarities[:, : best.shape[1]] = np.take_along_axis(scores, best, axis=1)
    ids[:, : best.shape[1]] = np.take_along_axis(every, best, axis=1)
    return similarities, ids
