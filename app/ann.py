"""FAISS: search an index, and choose how widely; only rooms called `ann` import faiss.

An index nominates candidates and nothing more: PostgreSQL computes the similarities that are
shown. An index that is searched is never changed; what a search may tune travels with the query.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app import clusters
from app.types import Rows, Vector, Vectors

LEAST_LISTS = 8
"""Lists that are looked into at least. Fewer would do for queries like those a build is measured
with; one halfway between two clusters found 0.60 with one list and 1.00 with four, and eight cost
a twentieth of a millisecond more."""

DEPTHS = (10, 50, 200)
"""Numbers of rows asked for that a build is tuned to; a wider search looks into all lists."""

SPARSE = 256
"""A bit for each id up to the highest is used while there are at most so many bits an id."""

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Nominees:
    """Candidates of one query, best first.

    `ids` has shape (m,), int64. `cutoff` is the similarity (inner product, -1 to 1) at and below
    which rows were left out; None when every row of the index was nominated.
    """

    ids: Ids
    cutoff: float | None

    @property
    def seen_to(self) -> float | None:
        """The cutoff as a cosine distance (0 to 2)."""
        return None if self.cutoff is None else 1.0 - self.cutoff


@dataclass(frozen=True, slots=True)
class AnnIndex:
    """An index in memory with the parameters it is searched with."""

    faiss_index: Any = field(repr=False)
    kind: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return int(self.faiss_index.ntotal)

    @property
    def dim(self) -> int:
        return int(self.faiss_index.d)

    def nominate(
        self, query: Vector, n: int, depth: int | None = None, *, only: Only | None = None
    ) -> Nominees:
        """The `n` rows most similar to a unit vector of shape (dim,), fewer if there are fewer.

        The search is as thorough as was needed for recall@`depth` (default: `n`); among `only`
        some rows nothing is passed over.
        """
        n = min(n, self.rows)
        similarities, ids = self.search(query[np.newaxis], n, depth or n, only=only)
        found = ids[0] != -1  # what FAISS answers in place of a row it did not find
        everything = found.sum() < n if only else self.kind == "flat" and n >= self.rows
        if everything:
            return Nominees(ids[0][found], None)
        worst = float(similarities[0][found].min()) if found.any() else 1.0
        return Nominees(ids[0][found], worst)

    def search(
        self, queries: Vectors, k: int, depth: int | None = None, *, only: Only | None = None
    ) -> tuple[NDArray[np.float32], Ids]:
        """Similarities and ids, each of shape (len(queries), k); missing ones have id -1."""
        if k == 0:
            nothing = (len(queries), 0)
            return np.empty(nothing, np.float32), np.empty(nothing, np.int64)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        parameters = only.parameters(self) if only else self._search_parameters(depth or k)
        found = self.faiss_index.search(queries, k, params=parameters)
        return found[0], found[1]

    def lists_of(self, vectors: Rows, places: Ids) -> clusters.Labels:
        """The inverted lists that the rows at some places, shape (m,), belong in, shape (m,)."""
        return clusters.nearest(vectors, self._centres(), places)

    def ranks(self, queries: Vectors, lists: clusters.Labels) -> Ids:
        """How many lists must be looked into to come to a list: for each query, shape (n, dim),
        and each of its lists, shape (n, m); the nearest list has rank 1."""
        order = np.argsort(-(queries @ self._centres().T), axis=1)
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.arange(1, order.shape[1] + 1)[np.newaxis], axis=1)
        return np.take_along_axis(ranks, lists, axis=1)

    def _centres(self) -> Vectors:
        found: Vectors = self.faiss_index.quantizer.reconstruct_n(0, self.faiss_index.nlist)
        return found

    def _search_parameters(self, depth: int) -> Any:
        """Lists to look into: as many as the next greater measured depth needed, else all."""
        if self.kind != "ivf":
            return None
        enough = [n for d, n in self.parameters["nprobe"].items() if int(d) >= depth]
        return _probing(min(enough, default=self.parameters["nlist"]))


class Only:
    """Some ids, shape (n,), int64, among which an index is to search and among no others.

    All lists are looked into: testing an id costs a hundredth of a distance, so where few rows
    pass this is quick, and it leaves nothing out.
    """

    def __init__(self, ids: Ids) -> None:
        highest = int(ids.max(initial=0))
        if highest <= SPARSE * max(len(ids), 4096):
            passes = np.zeros(highest + 1, dtype=bool)
            passes[ids] = True
            bits = np.packbits(passes, bitorder="little")
            self._selector = faiss().IDSelectorBitmap(bits)
            self.nbytes = bits.nbytes
        else:
            self._selector = faiss().IDSelectorBatch(ids)
            self.nbytes = 64 * len(ids)  # about what a set of numbers takes

    def parameters(self, index: AnnIndex) -> Any:
        """FAISS's search parameters for an index."""
        if index.kind != "ivf":
            return faiss().SearchParameters(sel=self._selector)
        lists = index.parameters["nlist"]
        return faiss().SearchParametersIVF(nprobe=lists, sel=self._selector)


def deep_look(first_look: int, k: int, share: float) -> tuple[int, int]:
    """How many rows to nominate, and how thoroughly (as for recall at which depth), so that k of
    those of which a share (0 to 1) passes by chance are found as surely as without a filter.

    The k-th that passes lies about k / share deep, now and then half as deep again.
    """
    return math.ceil(1.3 * first_look / share), math.ceil(1.5 * k / share)


@lru_cache(maxsize=64)
def _probing(lists: int) -> Any:
    """FAISS's search parameters; a search only reads them."""
    return faiss().SearchParametersIVF(nprobe=lists)


class Measure(Protocol):
    """What an index is measured with; `recall.Yardstick` is one."""

    def lists(self, index: AnnIndex, depth: int, goal: float) -> int:
        """In how many lists, of those nearest to a query, so much of the nearest rows lies."""

    def recall(self, index: AnnIndex, depth: int) -> float:
        """The share of the `depth` nearest rows that the index finds (0 to 1)."""


def tuned(index: AnnIndex, measure: Measure, goal: float) -> AnnIndex:
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


def faiss() -> Any:
    """The library, imported when first needed and told which processor this is.

    Its OpenBLAS takes modern processors for one of 2004 and is 2 to 4 times slower for it.
    """
    if "OPENBLAS_CORETYPE" not in os.environ and (kind := _core_type()):
        os.environ["OPENBLAS_CORETYPE"] = kind
    import faiss as library

    return library


def _core_type() -> str | None:
    try:
        flags = Path("/proc/cpuinfo").read_text().split("flags", 1)[1].split("\n", 1)[0].split()
    except (OSError, IndexError):
        return None
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= set(flags):
        return "SKYLAKEX"
    return "HASWELL" if {"avx2", "fma"} <= set(flags) else None
