"""The hits that a page is filled from: by the vector, by words, by both, and by colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan

import numpy as np
from numpy.typing import NDArray

from app.config import Settings
from app.db.queries import full_text, nearest, photo_pool
from app.db.queries.full_text import WordQuery
from app.db.queries.nearest import Candidates
from app.search import (
    colour_ranking,
    page_budget,
    photo_words,
    query_rewriting,
    shared_pictures,
)
from app.search.fusion import fuse, with_first
from app.search.page_data import PageData, SnapshotData
from app.search.photo_words import PoolProduct
from app.search.query_encoder import has_pictures
from app.search.retrieval import NearestRequest, Reason, RetrievalRequest, RetrievalResult
from app.search.shared_pictures import SharedPicture
from app.types import Hit, Query, Vector, Vectors, WordsReading

ROUNDING = 1e-6
"""Rounding error of PostgreSQL's float32 sums in a similarity."""

FUSION_FACTOR = 4
MIN_FUSED = 100
"""Lists to be fused are read to this many times the page's size, and at least to this length, so
that they overlap."""


@dataclass(frozen=True, slots=True)
class PageHits:
    """Hits with their scores, best first.

    `exhausted` is whether there are no further hits, and `cut` whether that is because they would
    be less similar than the query's minimum. Products in `unwanted` (ids) have an excluded word.
    """

    retrieval: RetrievalResult
    hits: Sequence[tuple[Hit, float]]
    exhausted: bool
    cut: bool = False
    unwanted: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A query with everything needed to fill a page.

    `retrieval.vector` is used only if `by_vector`; `catalogue_words` are the words to look up in
    the catalogue, as read by its vocabulary, and their weight (0 to 1) against the vector. With
    words beside pictures or a sku, the vector is that of the pictures, and `text_vector` that of
    the words, shape (dim,), if the model has read them. `earlier` are the ids of products of
    earlier pages, `reading` is how the catalogue's words were read, and `shared` are pictures that
    very many products show. With `catalogue_first`, products that have all the words come first.
    `colours` (n, 18) are those that the words name (`EncodedQuery`), and `whole_text` (dim,) is the
    vector with them, where `retrieval.vector`, or `text_vector`, is without.
    """

    retrieval: NearestRequest
    query: Query
    by_vector: bool
    catalogue_words: tuple[WordQuery, float] | None
    data: PageData
    settings: Settings
    text_vector: Vector | None = None
    earlier: tuple[int, ...] = ()
    reading: WordsReading | None = None
    shared: tuple[SharedPicture, ...] = ()
    catalogue_first: bool = False
    colours: Vectors | None = None
    whole_text: Vector | None = None

    @property
    def in_snapshot(self) -> RetrievalRequest:
        """The retrieval of a page that is filled by several statements in one snapshot."""
        assert isinstance(self.retrieval, RetrievalRequest)
        return self.retrieval

    @property
    def snapshot_data(self) -> SnapshotData:
        """The data of a page that is filled by several statements in one snapshot."""
        assert isinstance(self.data, SnapshotData)
        return self.data

    @property
    def by_photo_and_words(self) -> bool:
        """Whether words re-rank the products nearest to pictures or a sku."""
        words = self.catalogue_words is not None or self.text_vector is not None
        return words and has_pictures(self.query)

    @property
    def ranks_pool(self) -> bool:
        """Whether the page is a part of a pool that is ranked anew, the same for each page."""
        return self.by_photo_and_words or (self.colours is not None and self.by_vector)


def _find(request: PageRequest, retrieval: NearestRequest) -> RetrievalResult:
    """The nearest products; one only of those that show a shared picture."""
    hidden = tuple(each.picture_id for each in request.shared)
    result = request.data.retrieve(replace(retrieval, hidden=hidden))
    if not request.shared:
        return result
    hits = shared_pictures.merged(result.candidates.hits, request.shared)
    return replace(result, candidates=replace(result.candidates, hits=hits))


def page_hits_of(request: PageRequest, size: int) -> PageHits:
    """The first `size` hits that reach the query's minimum similarity."""
    if request.by_photo_and_words:
        return _reranked(request, size)
    if request.catalogue_words is None and request.ranks_pool:
        return _by_colours(request, size)
    if request.catalogue_words is None:
        result = _find(request, replace(request.retrieval, k=size))
        hits = result.candidates.hits
        page_hits = PageHits(result, [(hit, hit.similarity) for hit in hits], len(hits) < size)
        return _at_least(page_hits, request.query.min_similarity)
    read = max(min(FUSION_FACTOR * size, page_budget.MAX_CANDIDATES), size, MIN_FUSED)
    return _fused(request, size, read, *request.catalogue_words)


def _at_least(page_hits: PageHits, minimum: float | None, *, all_read: bool = True) -> PageHits:
    """The hits that are similar enough.

    Retrieval returns the nearest first. Once one of them is below the minimum, all hits above it
    are known, including those that words would find further down; unless of those that were ranked
    anew not `all_read`.
    """
    if minimum is None:
        return page_hits
    cut = _ends_below(page_hits.retrieval, minimum) and all_read
    hits = _similar_enough(page_hits.hits, minimum)
    return replace(page_hits, hits=hits, exhausted=page_hits.exhausted or cut, cut=cut)


def _similar_enough(
    hits: Sequence[tuple[Hit, float]], minimum: float | None
) -> list[tuple[Hit, float]]:
    """Those that reach the minimum similarity; all without one."""
    return [
        (hit, score)
        for hit, score in hits
        if minimum is None or hit.similarity >= minimum - ROUNDING
    ]


def _ends_below(result: RetrievalResult, minimum: float | None) -> bool:
    """Whether all products of at least this similarity are among the retrieved ones, because the
    last of these is less similar."""
    hits = result.candidates.hits
    return minimum is not None and bool(hits) and hits[-1].similarity < minimum - ROUNDING


def _fused(
    request: PageRequest, needed: int, size: int, words: WordQuery, weight: float
) -> PageHits:
    """The hits of the words in the catalogue, fused with those of the vector if there is one.

    `needed` products are wanted, `size` are read of each list.
    """
    retrieval, clause = request.in_snapshot, nearest.filter_clause(request.retrieval.filters)
    found = full_text.find(
        retrieval.connection, retrieval.model, words, clause, k=size, excluded=retrieval.excluded
    )
    by_words = {match.product_id: match.picture_id for match in found}
    first = [match.product_id for match in found if match.whole and request.catalogue_first]
    hits = {id_: Hit(id_, picture, nan) for id_, picture in by_words.items()}
    lists: list[tuple[float, Sequence[int]]] = [(weight, list(by_words))]
    reason = Reason("words", "the words of the catalogue")
    result = RetrievalResult(Candidates((), None, len(by_words)), "words", reason)
    exhausted = len(by_words) < size
    minimum, all_read = request.query.min_similarity, True
    if request.by_vector and _suffices(request, first, needed):
        exhausted = False
    elif request.by_vector:
        result, scored = _ranked_by_vector(request, replace(retrieval, k=size))
        scored = _similar_enough(scored, minimum)  # else those of a colour would push them out
        by_vector, all_read = [hit for hit, _ in scored][:size], len(scored) <= size
        compared = request.snapshot_data.nearest_hits(retrieval, list(by_words))
        hits |= {hit.product_id: hit for hit in (*compared, *by_vector)}
        lists.append((1.0 - weight, [hit.product_id for hit in by_vector]))
        exhausted = exhausted and len(by_vector) < size
    scores = fuse(lists)
    if request.catalogue_first:
        scores = with_first(
            scores, first, keep_order=query_rewriting.has_every_word(request.reading)
        )
    found_hits = [(hits[id_], score) for id_, score in scores.items()]
    return _at_least(PageHits(result, found_hits, exhausted), minimum, all_read=all_read)


def _ranked_by_vector(
    request: PageRequest, retrieval: RetrievalRequest
) -> tuple[RetrievalResult, list[tuple[Hit, float]]]:
    """The products nearest to the vector with their scores, best first: by similarity, or by that
    and the colours that the words name."""
    if request.colours is None:
        result = request.data.retrieve(retrieval)
        return result, [(hit, hit.similarity) for hit in result.candidates.hits]
    hidden = tuple(each.picture_id for each in request.shared)
    size = max(retrieval.k, colour_ranking.POOL_PRODUCTS)
    retrieval = replace(retrieval, k=size, hidden=hidden)
    result = _find(request, retrieval)
    pool = colour_ranking.with_nominees(retrieval, result.candidates.hits, request.colours)
    shares = colour_ranking.known_shares(retrieval.connection, pool)
    if request.whole_text is not None and any(hit.picture_id not in shares for hit in pool):
        by_whole = _find(request, replace(retrieval, vector=request.whole_text)).candidates.hits
        pool = colour_ranking.with_further(retrieval, pool, by_whole)
        shares = colour_ranking.known_shares(retrieval.connection, pool)
    known = sum(hit.picture_id in shares for hit in pool)
    told = f"the colours of {known:,} of {len(pool):,} pictures rank them"
    if known < len(pool):
        told = (
            f"the colours of {known:,} of {len(pool):,} pictures rank them, and the whole text's "
            f"vector the other {len(pool) - known:,}"
        )
    result = replace(result, reason=result.reason.extended(told))
    return result, _scored(request, pool, shares)


def _scored(
    request: PageRequest, pool: Sequence[Hit], shares: Mapping[int, NDArray[np.float32]]
) -> list[tuple[Hit, float]]:
    """A pool with its scores by similarity and colours, best first; where the colours of a picture
    are not known, by the similarity to the whole text."""
    assert request.colours is not None
    to_whole = {}
    unknown = [hit.product_id for hit in pool if hit.picture_id not in shares]
    if unknown and request.whole_text is not None:
        connection, model = request.in_snapshot.connection, request.retrieval.model
        hidden = tuple(each.picture_id for each in request.shared)
        compared = full_text.nearest_hits(
            connection, model, request.whole_text, unknown, hidden=hidden
        )
        to_whole = {hit.product_id: hit.similarity for hit in compared}
    return colour_ranking.ranked(pool, request.colours, shares, to_whole)


def _by_colours(request: PageRequest, size: int) -> PageHits:
    """The first `size` of the pool that similarity and colours rank, without the products of
    earlier pages, which belong to it so that it is the same for each page."""
    earlier, minimum = set(request.earlier), request.query.min_similarity
    asked_with = tuple(set(request.retrieval.excluded) - earlier)
    depth = size + len(earlier)
    retrieval = replace(request.in_snapshot, k=depth, excluded=asked_with, passed=())
    result, ranked = _ranked_by_vector(request, retrieval)
    left = [(hit, score) for hit, score in ranked if hit.product_id not in earlier]
    left = _similar_enough(left, minimum)
    cut = _ends_below(result, minimum)
    found = len(result.candidates.hits)
    complete = found < max(depth, colour_ranking.POOL_PRODUCTS)
    exhausted = (complete or cut) and len(left) <= size
    return PageHits(result, left[:size], exhausted, cut)


def _suffices(request: PageRequest, first: Sequence[int], needed: int) -> bool:
    """Whether the products that have all the words fill the page, so that what the model finds
    would not be shown."""
    compares = request.query.min_similarity is not None or request.query.near_query is not None
    return len(first) >= needed and query_rewriting.has_every_word(request.reading) and not compares


def _reranked(request: PageRequest, size: int) -> PageHits:
    """The first `size` of the products nearest to the photo that reach the query's minimum
    similarity, in the order of photo and words.

    The pool includes the products of earlier pages, so that it is the same for each page.
    """
    pool_size = max(photo_words.POOL_PRODUCTS, size + len(request.earlier))
    asked_with = tuple(set(request.retrieval.excluded) - set(request.earlier))
    retrieval = replace(request.in_snapshot, k=pool_size, excluded=asked_with, passed=())
    result = _find(request, retrieval)
    hits = result.candidates.hits
    pool, kinds = _pool(request, hits, asked_with)
    _, weight = request.catalogue_words or (None, 0.0)
    ranked = photo_words.rank(
        pool, kinds, weight=request.query.words_weight, catalogue_weight=weight
    )
    told = f"the words rank the {len(hits):,} products nearest to the photo"
    if request.catalogue_words is not None:
        having = sum(each.words > 0 for each in pool)
        told = (
            f"the words rank the {len(hits):,} products nearest to the photo, {having:,} of which "
            "have any of them in the catalogue"
        )
    earlier, minimum = set(request.earlier), request.query.min_similarity
    left = [(hit, score) for hit, score in ranked if hit.product_id not in earlier]
    left = _similar_enough(left, minimum)
    cut = _ends_below(result, minimum)
    exhausted = (cut or len(hits) < pool_size) and len(left) <= size
    result = replace(result, reason=result.reason.extended(told))
    unwanted: frozenset[int] = frozenset()
    if request.catalogue_words is not None:
        ids = [hit.product_id for hit, _ in left[:size]]
        unwanted = photo_pool.with_unwanted_words(
            retrieval.connection, request.catalogue_words[0], ids
        )
    return PageHits(result, left[:size], exhausted, cut, unwanted)


def _pool(
    request: PageRequest, hits: Sequence[Hit], asked_with: Sequence[int]
) -> tuple[list[PoolProduct], frozenset[str]]:
    """The products nearest to the photo with what the words have to do with them, and the kinds
    that are looked for."""
    connection, model = request.in_snapshot.connection, request.retrieval.model
    ids = [hit.product_id for hit in hits]
    categories, shares, kinds = {}, {}, frozenset[str]()
    if request.catalogue_words is not None:
        words, _ = request.catalogue_words
        categories = photo_pool.categories(connection, [*ids, *asked_with])
        shares = photo_pool.word_shares(connection, words, ids)
        own = frozenset(categories[id_] for id_ in asked_with if id_ in categories)
        kinds = own or photo_words.kinds_by_vote(
            [(categories.get(hit.product_id), hit.similarity) for hit in hits]
        )
        asked = query_rewriting.asked(request.query.words or "", request.reading)
        kinds = photo_words.kinds_of_query(kinds, asked, set(categories.values()))
    to_words = {}
    if request.text_vector is not None:
        compared = full_text.nearest_hits(connection, model, request.text_vector, ids)
        to_words = {hit.product_id: hit.similarity for hit in compared}
        if request.colours is not None:
            known = colour_ranking.known_shares(connection, compared)
            to_words = {hit.product_id: score for hit, score in _scored(request, compared, known)}
    return [
        PoolProduct(hit, categories.get(id_), shares.get(id_, 0.0), to_words.get(id_))
        for id_, hit in zip(ids, hits, strict=True)
    ], kinds
