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
from app.index.faiss_library import faiss, one_thread
from app.index.id_selectors import ExcludedIds, Ids, IdSelector, combined
from app.types import EmbeddingRows, Vector, Vectors
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
    """

    ids: Ids
    cutoff: float | None
    known: int | None = None

    def among(self, selector: IdSelector) -> Nominees:
        """Those that are selected. As many of the `known` rows are taken to be among them as of the
        first so many nominees: rows that pass may all be farther away than those that are known.
        If there are no selected ones, nothing is claimed."""
        selected = selector.contains(self.ids)
        ids = self.ids[selected]
        if not len(ids):
            return Nominees(ids, None if self.cutoff is None else 1.0)
        known = None if self.known is None else int(selected[: self.known].sum())
        return Nominees(ids, self.cutoff, known)

    @property
    def seen_to(self) -> float | None:
        """The cutoff as a cosine distance (0 to 2)."""
        return None if self.cutoff is None else 1.0 - self.cutoff


@dataclass(frozen=True, slots=True)
class AnnIndex:
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
        also those that are hardly less similar.

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
        least = min(max(n, self.pool_behind(passed, depth)), self.rows)
        more = MAX_SELECTED_MORE if selector and self.kind == "rabitq" else 0
        fetched = min(least + more, self.rows)
        with one_thread():
            similarities, ids = self.search(
                queries, fetched, depth, selector=selector, excluded=excluded
            )
        margin = max(4, (depth + passed) // 4)
        return [
            self._nominees(*row, n, depth, margin, least=least, selected=selector is not None)
            for row in zip(similarities, ids, strict=True)
        ]

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
            searched, selector = copied.rows, None
            parameters = self._all_lists(combined(None, excluded))
        else:
            parameters = self._search_parameters(depth or k, selector, excluded)
        similarities, ids = searched.search(queries, k, params=parameters)
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

    def ranks(self, queries: Vectors, lists: NDArray[np.int64]) -> NDArray[np.int64]:
        """The nprobe needed to reach each list: for `queries`, shape (n, dim), and the lists of
        each, shape (n, m). The nearest list has rank 1."""
        order = np.argsort(-(queries @ self.centroids().T), axis=1)
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.arange(1, order.shape[1] + 1)[np.newaxis], axis=1)
        return np.take_along_axis(ranks, lists, axis=1)

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
        if selector is not None:
            return self._all_lists(passes)
        return _list_parameters(
            self._nprobe(_depth_behind(len(excluded) if excluded else 0, depth)), passes
        )

    def _all_lists(self, passes: Any) -> Any:
        """FAISS's parameters of a search of all inverted lists."""
        return _list_parameters(int(self.parameters["nlist"]), passes)

    def _nprobe(self, depth: int) -> int:
        """That of the next tuned depth that is at least `depth`; all lists beyond the last."""
        sufficient = [n for d, n in self.parameters["nprobe"].items() if int(d) >= depth]
        return int(min(sufficient, default=self.parameters["nlist"]))


def _depth_behind(passed: int, depth: int) -> int:
    """The depth at which to search for `depth` rows behind those that are passed over: an eighth
    deeper, because the last rows of a depth are found less often than all of them."""
    return depth + passed + passed // 8


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
