"""Builds a FAISS index and searches it for candidates; only this package uses faiss.

An index only nominates candidates: PostgreSQL computes all similarities that are returned. An index
is never changed once it is searched; search parameters are passed with each query.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.index import kmeans
from app.index.faiss_library import faiss
from app.index.id_selectors import ExcludedIds, Ids, IdSelector, combined
from app.index.nominees import TrainedIndex
from app.index.selected_vectors import SelectedVectors
from app.types import EmbeddingRows, Vectors
from app.vectors import to_float32, unit_rows

MIN_NPROBE = 8
"""Smallest nprobe. Queries like those a build is measured with need fewer lists, but one between
two clusters had recall 0.60 with one list and 1.00 with four; eight cost 0.05 ms more."""

DEPTHS = (10, 20, 40, 100, 200)
"""The k for which a build is tuned; a deeper search probes all lists."""

FLAT_ROWS = 5_000
"""Up to this many rows the index is flat: an exact scan takes 0.2 ms at most and needs no training.
With 10,000 rows it takes 0.7 ms and inverted lists 0.03 to 0.24; with 20,000 it takes 1.6 ms and
they 0.04 to 0.24, after 0.5 to 1 s of training (bench/index/flat_vs_ivf.py, 512 dimensions)."""

ADD_ROWS = 8192
"""Rows that are encoded at a time."""


@dataclass(frozen=True, slots=True)
class Code:
    """How inverted lists store a vector: the kind of index, and the bits per number."""

    kind: str
    bits: int


FLOAT16 = Code("ivf", 16)
CODES = (Code("rabitq", 2), Code("rabitq", 4), FLOAT16)
"""From the smallest to the largest. A build takes the first that needs no more nominees than
MAX_POOL to reach the recall goal. RaBitQ's vectors are estimates, FLOAT16's those of the table."""

SMALL_ROWS = 20_000
"""Up to this many rows two codes are tried, 2 and 16 bits; 16 take 21 MB of 512 dimensions.
Of vectors without near neighbours, for which 2 bits do not suffice, a search of all lists with 4
bits takes 5 to 13 times as long as with 16, of others 0.8 times to as long."""

KINDS = ("flat", "ivf", "rabitq")
"""The kinds of index that this version can search."""

MAX_POOL = 100
"""Largest number of nominees for ten results that a compressed index may need. PostgreSQL computes
their exact distances, so each costs a search some time."""

LARGE_MAX_POOL = 250
"""The same from LARGE_ROWS rows on, where memory is scarcer than time: ten million vectors of 512
dimensions take 1.6 GB in 2 bits and 2.9 GB in 4, and twice that while an index is replaced."""

LARGE_ROWS = 4_000_000


@dataclass(frozen=True, slots=True)
class AnnIndex(TrainedIndex):
    """A FAISS index in memory with its search parameters; `kind` is one of KINDS."""

    faiss_index: Any = field(repr=False)
    kind: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return int(self.faiss_index.ntotal)

    @property
    def dim(self) -> int:
        return int(self.faiss_index.d)

    def with_parameters(self, parameters: Mapping[str, Any]) -> AnnIndex:
        """The same index, searched with other parameters."""
        return AnnIndex(self.faiss_index, self.kind, parameters)

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
        if k == 0:
            shape = (len(queries), 0)
            return np.empty(shape, np.float32), np.empty(shape, np.int64)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        searched = self.faiss_index
        copied = None if selector is None else selector.copied
        if copied is not None and copied.are_of(searched):
            if isinstance(copied, SelectedVectors):
                return copied.search(queries, k, excluded)
            searched, selector = copied.rows, None
            parameters = self._all_lists(combined(None, excluded))
        else:
            parameters = self._search_parameters(depth or k, selector, excluded)
        similarities, ids = searched.search(queries, k, params=parameters)
        return similarities, ids

    def has_vectors(self, selector: IdSelector | None) -> bool:
        """Whether the vectors of the selected rows were read."""
        copied = None if selector is None else selector.copied
        return isinstance(copied, SelectedVectors) and copied.are_of(self.faiss_index)

    def search_lists(
        self, queries: Vectors, k: int, nprobe: int,
        selector: IdSelector | None, excluded: ExcludedIds | None,
    ) -> tuple[NDArray[np.float32], Ids]:  # fmt: skip
        """`search` of inverted lists with this nprobe, whatever the parameters say."""
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        parameters = _list_parameters(nprobe, combined(selector, excluded))
        similarities, ids = self.faiss_index.search(queries, k, params=parameters)
        return similarities, ids

    def lists_of(self, ids: Ids) -> NDArray[np.int64]:
        """The inverted list of each of these rows of the index, of any shape."""
        wanted, inverse = np.unique(ids, return_inverse=True)
        found = np.zeros(len(wanted), np.int64)
        lists = self.faiss_index.invlists
        for number in range(lists.nlist):
            if size := lists.list_size(number):
                members = faiss().rev_swig_ptr(lists.get_ids(number), size)
                places = np.minimum(np.searchsorted(wanted, members), len(wanted) - 1)
                found[places[wanted[places] == members]] = number
        return found[inverse.reshape(ids.shape)]

    def centroids(self) -> Vectors:
        """The centroid of each inverted list, shape (lists, dim)."""
        centroids: Vectors = self.faiss_index.quantizer.reconstruct_n(0, self.faiss_index.nlist)
        return centroids

    def _search_parameters(
        self, depth: int, selector: IdSelector | None, excluded: ExcludedIds | None
    ) -> Any:
        """FAISS's parameters of a search for recall@`depth` behind the excluded rows; with a
        `selector` all lists are probed."""
        passes = combined(selector, excluded)
        if self.kind == "flat":
            return passes and faiss().SearchParameters(sel=passes)
        return _list_parameters(self.probes(depth, selector, excluded), passes)

    def _all_lists(self, passes: Any) -> Any:
        """FAISS's parameters of a search of all inverted lists."""
        return _list_parameters(int(self.parameters["nlist"]), passes)


def deep_search_size(initial_fetch: int, k: int, share: float) -> tuple[int, int]:
    """The number of rows to nominate and the depth to search with, so that k of them pass a filter
    that a share (0 to 1) of all rows passes, with the same recall as without a filter.

    The k-th row that passes has a rank of about k / share, occasionally 1.5 times that.
    """
    return math.ceil(1.3 * initial_fetch / share), math.ceil(1.5 * k / share)


def _list_parameters(nprobe: int, passes: Any) -> Any:
    """FAISS's parameters of a search of so many lists, among the ids that pass (None: all)."""
    if passes is None:
        return _nprobe_parameters(nprobe)
    return faiss().SearchParametersIVF(nprobe=nprobe, sel=passes)


@lru_cache(maxsize=64)
def _nprobe_parameters(nprobe: int) -> Any:
    """FAISS's search parameters; shared, because a search only reads them."""
    return faiss().SearchParametersIVF(nprobe=nprobe)


def codes(rows: int) -> tuple[Code, ...]:
    """The codes that a build of so many rows tries, in their order."""
    if rows > SMALL_ROWS:
        return CODES
    return tuple(code for code in CODES if code.bits != 4) or CODES


def max_pool(rows: int) -> int:
    """The largest number of nominees for ten results that a compressed index of so many rows may
    need."""
    return MAX_POOL if rows < LARGE_ROWS else LARGE_MAX_POOL


def list_count(rows: int) -> int:
    """The number of inverted lists for `rows` rows: 2 * sqrt(rows).

    At 100,000 rows training and encoding took 12.7 s of processor time; with 4 * sqrt(rows) 22.1 s,
    and as many lists were probed; with sqrt(rows) 11.4 s, and 17 larger lists were probed, not 8.
    """
    return int(2 * rows**0.5)


def build(ids: Ids, vectors: EmbeddingRows, code: Code = CODES[0]) -> AnnIndex:
    """An index over unit vectors of shape (n, dim), float16 or float32, by inner product.

    Flat up to FLAT_ROWS rows; above, inverted lists of vectors in a code.
    """
    if len(ids) <= FLAT_ROWS:
        return _flat(ids, vectors)
    index = inverted_lists(kmeans.train(vectors, list_count(len(ids))), code)
    for begin in range(0, len(ids), ADD_ROWS):
        part = slice(begin, begin + ADD_ROWS)
        add(index, ids[part], vectors[part])
    return index


def _flat(ids: Ids, vectors: EmbeddingRows) -> AnnIndex:
    index = faiss().IndexIDMap2(faiss().IndexFlatIP(vectors.shape[1]))
    index.add_with_ids(unit_rows(vectors), ids)
    return AnnIndex(index, "flat")


def code_of(index: AnnIndex) -> Code:
    """The code of the vectors of inverted lists."""
    return Code(index.kind, int(index.parameters.get("bits", FLOAT16.bits)))


def inverted_lists(centroids: Vectors, code: Code) -> AnnIndex:
    """An empty index with a list for each centroid, shape (lists, dim); `add` fills it."""
    lists, dim = centroids.shape
    quantizer = faiss().IndexFlatIP(dim)
    quantizer.add(centroids)
    metric, parameters = faiss().METRIC_INNER_PRODUCT, {"nlist": lists, "nprobe": {}}
    if code.kind == "rabitq":
        index = faiss().IndexIVFRaBitQ(quantizer, dim, lists, metric, True, code.bits)
        parameters |= {"bits": code.bits, "pool": {}}
    else:
        # The same number format as in the table, so the rows are stored unchanged.
        fp16 = faiss().ScalarQuantizer.QT_fp16
        index = faiss().IndexIVFScalarQuantizer(quantizer, dim, lists, fp16, metric)
        index.by_residual = False
    index.is_trained = True
    # The index must own the quantizer, which Python would otherwise free while it is used.
    index.own_fields = True
    quantizer.this.disown()
    return AnnIndex(index, code.kind, parameters)


def add(index: AnnIndex, ids: Ids, vectors: EmbeddingRows) -> None:
    """Add rows, shapes (n,) and (n, dim), each to the list of its nearest centroid. The index must
    not be in use yet."""
    pointer, rows = faiss().swig_ptr, to_float32(vectors)
    labels = kmeans.assign(rows, index.centroids()).astype(np.int64)
    ids = np.ascontiguousarray(ids, dtype=np.int64)
    index.faiss_index.add_core(len(ids), pointer(rows), pointer(ids), pointer(labels))
