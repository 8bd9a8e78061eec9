"""Builds a FAISS index and searches it for candidates; only this package uses faiss.

An index only nominates candidates: PostgreSQL computes all similarities that are returned. An index
is never changed once it is searched; search parameters are passed with each query.
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

MIN_NPROBE = 8
"""Smallest nprobe. Queries like those a build is measured with need fewer lists, but one between
two clusters had recall 0.60 with one list and 1.00 with four; eight cost 0.05 ms more."""

DEPTHS = (10, 50, 200)
"""The k for which a build's nprobe is tuned; a deeper search probes all lists."""

BITMAP_BITS_PER_ID = 256
"""A bitmap of ids is used up to this many bits per selected id; above, a hash set."""

FLAT_ROWS = 5_000
"""Up to this many rows the index is flat: an exact scan takes 0.2 ms at most and needs no training.
With 10,000 rows it takes 0.7 ms and inverted lists 0.03 to 0.24; with 20,000 it takes 1.6 ms and
they 0.04 to 0.24, after 0.5 to 1 s of training (bench/index/flat_vs_ivf.py, 512 dimensions)."""

Ids = NDArray[np.int64]
"""Picture ids."""


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
    """A FAISS index in memory with its search parameters; `kind` is "flat" or "ivf"."""

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
        self,
        query: Vector,
        n: int,
        depth: int | None = None,
        *,
        selector: IdSelector | None = None,
    ) -> Nominees:
        """The `n` rows most similar to a unit vector of shape (dim,), fewer if there are fewer.

        nprobe is the one tuned for recall@`depth` (default: `n`). With a `selector` the search is
        exhaustive among the selected rows.
        """
        n = min(n, self.rows)
        similarities, ids = self.search(query[np.newaxis], n, depth or n, selector=selector)
        valid = ids[0] != -1  # FAISS pads missing results with -1
        everything = valid.sum() < n if selector else self.kind == "flat" and n >= self.rows
        if everything:
            return Nominees(ids[0][valid], None)
        worst = float(similarities[0][valid].min()) if valid.any() else 1.0
        return Nominees(ids[0][valid], worst)

    def search(
        self,
        queries: Vectors,
        k: int,
        depth: int | None = None,
        *,
        selector: IdSelector | None = None,
    ) -> tuple[NDArray[np.float32], Ids]:
        """Similarities and ids, each of shape (len(queries), k); missing ones have id -1."""
        if k == 0:
            shape = (len(queries), 0)
            return np.empty(shape, np.float32), np.empty(shape, np.int64)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        parameters = selector.parameters(self) if selector else self._search_parameters(depth or k)
        similarities, ids = self.faiss_index.search(queries, k, params=parameters)
        return similarities, ids

    def lists_of(self, vectors: EmbeddingRows, positions: NDArray[np.int64]) -> kmeans.Labels:
        """The inverted list of each row of `vectors` at `positions` (row numbers, shape (m,))."""
        return kmeans.assign(vectors, self._centroids(), positions)

    def ranks(self, queries: Vectors, lists: kmeans.Labels) -> NDArray[np.int64]:
        """The nprobe needed to reach each list: for `queries`, shape (n, dim), and the lists of
        each, shape (n, m). The nearest list has rank 1."""
        order = np.argsort(-(queries @ self._centroids().T), axis=1)
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.arange(1, order.shape[1] + 1)[np.newaxis], axis=1)
        return np.take_along_axis(ranks, lists, axis=1)

    def _centroids(self) -> Vectors:
        centroids: Vectors = self.faiss_index.quantizer.reconstruct_n(0, self.faiss_index.nlist)
        return centroids

    def _search_parameters(self, depth: int) -> Any:
        """nprobe of the next tuned depth that is at least `depth`; all lists beyond the last."""
        if self.kind != "ivf":
            return None
        sufficient = [n for d, n in self.parameters["nprobe"].items() if int(d) >= depth]
        return _nprobe_parameters(min(sufficient, default=self.parameters["nlist"]))


class IdSelector:
    """Restricts a search to some ids, shape (n,), int64; `nbytes` is the memory it takes.

    All lists are probed: testing an id costs a hundredth of computing a distance, so an exhaustive
    search among few selected rows is fast.
    """

    def __init__(self, ids: Ids) -> None:
        highest = int(ids.max(initial=0))
        if highest <= BITMAP_BITS_PER_ID * max(len(ids), 4096):
            passes = np.zeros(highest + 1, dtype=bool)
            passes[ids] = True
            bits = np.packbits(passes, bitorder="little")
            self._selector = faiss().IDSelectorBitmap(bits)
            self.nbytes = bits.nbytes
        else:
            self._selector = faiss().IDSelectorBatch(ids)
            self.nbytes = 64 * len(ids)  # approximate size of a C++ hash set

    def parameters(self, index: AnnIndex) -> Any:
        """FAISS's search parameters for an index."""
        if index.kind != "ivf":
            return faiss().SearchParameters(sel=self._selector)
        lists = index.parameters["nlist"]
        return faiss().SearchParametersIVF(nprobe=lists, sel=self._selector)


def deep_search_size(initial_fetch: int, k: int, share: float) -> tuple[int, int]:
    """The number of rows to nominate and the depth to search with, so that k of them pass a filter
    that a share (0 to 1) of all rows passes, with the same recall as without a filter.

    The k-th row that passes has a rank of about k / share, occasionally 1.5 times that.
    """
    return math.ceil(1.3 * initial_fetch / share), math.ceil(1.5 * k / share)


@lru_cache(maxsize=64)
def _nprobe_parameters(nprobe: int) -> Any:
    """FAISS's search parameters; shared, because a search only reads them."""
    return faiss().SearchParametersIVF(nprobe=nprobe)


def faiss() -> Any:
    """The faiss module, imported on first use.

    Its bundled OpenBLAS does not recognise modern processors, falls back to code for one of 2004
    and is then 2 to 4 times slower, so the processor type is set before the import.
    """
    if "OPENBLAS_CORETYPE" not in os.environ and (kind := _openblas_core_type()):
        os.environ["OPENBLAS_CORETYPE"] = kind
    import faiss as library

    return library


def _openblas_core_type() -> str | None:
    try:
        flags = Path("/proc/cpuinfo").read_text().split("flags", 1)[1].split("\n", 1)[0].split()
    except (OSError, IndexError):
        return None
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= set(flags):
        return "SKYLAKEX"
    return "HASWELL" if {"avx2", "fma"} <= set(flags) else None


def build(ids: Ids, vectors: EmbeddingRows) -> AnnIndex:
    """An index over unit vectors of shape (n, dim), float16 or float32, by inner product.

    Flat up to FLAT_ROWS rows, IVF with 16-bit vectors and 4 * sqrt(n) lists above.
    """
    if len(ids) <= FLAT_ROWS:
        return _flat(ids, vectors)
    return _ivf(ids, vectors, kmeans.train(vectors, int(4 * len(ids) ** 0.5)))


def _flat(ids: Ids, vectors: EmbeddingRows) -> AnnIndex:
    index = faiss().IndexIDMap2(faiss().IndexFlatIP(vectors.shape[1]))
    index.add_with_ids(unit_rows(vectors), ids)
    return AnnIndex(index, "flat")


def _ivf(ids: Ids, vectors: EmbeddingRows, centroids: Vectors) -> AnnIndex:
    """Each row in the list of its nearest centroid, stored as float16 without conversion."""
    lists, dim = centroids.shape
    quantizer = faiss().IndexFlatIP(dim)
    quantizer.add(centroids)
    index = faiss().IndexIVFScalarQuantizer(
        quantizer, dim, lists, faiss().ScalarQuantizer.QT_fp16, faiss().METRIC_INNER_PRODUCT
    )
    index.by_residual = False
    index.is_trained = True
    _fill_lists(index, ids, vectors, kmeans.assign(vectors, centroids))
    # The index must own the quantizer, which Python would otherwise free while it is used.
    index.own_fields = True
    quantizer.this.disown()
    return AnnIndex(index, "ivf", {"nlist": lists, "nprobe": {}})


def _fill_lists(index: Any, ids: Ids, vectors: EmbeddingRows, labels: kmeans.Labels) -> None:
    """Fill each list in one call, so that no list allocates more memory than its rows need."""
    pointer = faiss().swig_ptr
    order, bounds = kmeans.group_by_label(labels, index.nlist)
    for number in range(index.nlist):
        members = order[bounds[number] : bounds[number + 1]]
        list_ids = ids[members]
        codes = vectors[members].astype(np.float16, copy=False).view(np.uint8)
        if len(members):
            index.invlists.add_entries(number, len(members), pointer(list_ids), pointer(codes))
    index.ntotal = len(ids)
