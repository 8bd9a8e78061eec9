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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.index import kmeans
from app.types import EmbeddingRows, Vector, Vectors
from app.vectors import unit_rows

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
        self, query: Vector, n: int, depth: int | None = None, *, only: IdSelector | None = None
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
        self, queries: Vectors, k: int, depth: int | None = None, *, only: IdSelector | None = None
    ) -> tuple[NDArray[np.float32], Ids]:
        """Similarities and ids, each of shape (len(queries), k); missing ones have id -1."""
        if k == 0:
            nothing = (len(queries), 0)
            return np.empty(nothing, np.float32), np.empty(nothing, np.int64)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        parameters = only.parameters(self) if only else self._search_parameters(depth or k)
        found = self.faiss_index.search(queries, k, params=parameters)
        return found[0], found[1]

    def lists_of(self, vectors: EmbeddingRows, places: Ids) -> kmeans.Labels:
        """The inverted lists that the rows at some places, shape (m,), belong in, shape (m,)."""
        return kmeans.nearest(vectors, self._centres(), places)

    def ranks(self, queries: Vectors, lists: kmeans.Labels) -> Ids:
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


class IdSelector:
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


def deep_search_size(initial_fetch: int, k: int, share: float) -> tuple[int, int]:
    """How many rows to nominate, and how thoroughly (as for recall at which depth), so that k of
    those of which a share (0 to 1) passes by chance are found as surely as without a filter.

    The k-th that passes lies about k / share deep, now and then half as deep again.
    """
    return math.ceil(1.3 * initial_fetch / share), math.ceil(1.5 * k / share)


@lru_cache(maxsize=64)
def _probing(lists: int) -> Any:
    """FAISS's search parameters; a search only reads them."""
    return faiss().SearchParametersIVF(nprobe=lists)


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


FLAT_ROWS = 5_000
"""Up to this many rows an exact scan takes 0.2 ms at most, misses nothing and is made in no time.
With 10,000 it takes 0.7 ms where inverted lists take 0.03 to 0.24, and with 20,000 1.6 where they
take 0.04 to 0.24, for half a second to a second of training (bench/index/flat_vs_ivf.py, 512
dimensions)."""


def build(ids: Ids, vectors: EmbeddingRows) -> AnnIndex:
    """An index over unit vectors of shape (n, dim), float16 or float32, by inner product.

    Flat while that is fast enough, beyond that inverted lists of 16-bit vectors.
    """
    if len(ids) <= FLAT_ROWS:
        return _flat(ids, vectors)
    return _inverted_lists(ids, vectors, kmeans.centres(vectors, int(4 * len(ids) ** 0.5)))


def _flat(ids: Ids, vectors: EmbeddingRows) -> AnnIndex:
    index = faiss().IndexIDMap2(faiss().IndexFlatIP(vectors.shape[1]))
    index.add_with_ids(unit_rows(vectors), ids)
    return AnnIndex(index, "flat")


def _inverted_lists(ids: Ids, vectors: EmbeddingRows, centres: Vectors) -> AnnIndex:
    """Each row in the list of its nearest centre, as the 16-bit numbers that it is."""
    lists, dim = centres.shape
    quantizer = faiss().IndexFlatIP(dim)
    quantizer.add(centres)
    index = faiss().IndexIVFScalarQuantizer(
        quantizer, dim, lists, faiss().ScalarQuantizer.QT_fp16, faiss().METRIC_INNER_PRODUCT
    )
    index.by_residual = False
    index.is_trained = True
    _fill(index, ids, vectors, kmeans.nearest(vectors, centres))
    # The index now owns what Python would otherwise free under it.
    index.own_fields = True
    quantizer.this.disown()
    return AnnIndex(index, "ivf", {"nlist": lists, "nprobe": {}})


def _fill(index: Any, ids: Ids, vectors: EmbeddingRows, labels: kmeans.Labels) -> None:
    """One list after the other, each at once, so that none has more room than rows."""
    pointer = faiss().swig_ptr
    order, bounds = kmeans.members(labels, index.nlist)
    for number in range(index.nlist):
        mine = order[bounds[number] : bounds[number + 1]]
        names, codes = ids[mine], vectors[mine].astype(np.float16, copy=False).view(np.uint8)
        if len(mine):
            index.invlists.add_entries(number, len(mine), pointer(names), pointer(codes))
    index.ntotal = len(ids)
