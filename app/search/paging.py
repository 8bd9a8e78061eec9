"""Fills one page of matches: retrieves more hits until k remain after deduplication.

Dropped and folded products are replaced by the next ones, so a page is short only if there are no
more products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from math import nan

from app.config import Settings
from app.db.queries import full_text, nearest, photo_pool, products
from app.db.queries.full_text import WordQuery
from app.db.queries.nearest import Candidates
from app.search import page_budget, photo_words, query_rewriting, shared_pictures
from app.search.dedup import UNWANTED_WORD, DedupResult, ScoredHit, deduplicate, needs_dedup
from app.search.fusion import fuse, with_first
from app.search.page_budget import PageBudget
from app.search.page_data import PageData, SnapshotData
from app.search.photo_words import PoolProduct
from app.search.query_encoder import has_pictures
from app.search.retrieval import NearestRequest, Reason, RetrievalRequest, RetrievalResult
from app.search.shared_pictures import SharedPicture
from app.types import Dropped, Hit, Query, Vector, WordsReading

ROUNDING = 1e-6
"""Rounding error of PostgreSQL's float32 sums in a similarity."""

FUSION_FACTOR = 4
MIN_FUSED = 100
"""Lists to be fused are read to this many times the page's size, and at least to this length, so
that they overlap."""


@dataclass(frozen=True, slots=True)
class Page:
    """The matches of a page before their details are read, and how they were found.

    `by_words` is whether the words of the catalogue were searched, and `earlier` are the ids of the
    products of earlier pages and of the one asked with. `cut` is whether the minimum similarity
    ended the page. `stopped` is the number of products retrieved when the page was given up, 0 if
    it was not. `shared` are the pictures of which one product only was retrieved.
    """

    deduplicated: DedupResult
    retrieval: RetrievalResult
    by_words: bool
    earlier: tuple[int, ...] = ()
    cut: bool = False
    stopped: int = 0
    shared: tuple[SharedPicture, ...] = ()


@dataclass(frozen=True, slots=True)
class _PageHits:
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


def page(request: PageRequest) -> Page:
    """The first k products of the query, after filters, deduplication and earlier pages."""
    hits_shown = _earlier(request)
    shown = _scored(request, hits_shown) if needs_dedup(request.query) else []
    earlier = tuple(hit.product_id for hit, _ in hits_shown)
    excluded = (*request.retrieval.excluded, *earlier)
    retrieval = replace(request.retrieval, excluded=excluded)
    if earlier and request.by_vector:
        retrieval = replace(retrieval, passed=request.data.pictures_of(excluded))
    request = replace(request, retrieval=retrieval, earlier=earlier)
    k, query = request.retrieval.k, request.query
    by_words = request.catalogue_words is not None or request.by_photo_and_words
    budget = PageBudget(query, k, by_words=by_words)
    while True:
        page_hits = _page_hits(request, budget.size)
        hits = page_hits.retrieval.candidates.hits
        # All of a pool that is reranked: it must be the same for each page.
        leading = shared_pictures.leading(hits, len(hits) if request.by_photo_and_words else k)
        if found := _newly_shared(request, page_hits, leading, shown):
            request = replace(request, shared=(*request.shared, *found))
            continue
        last = page_hits.exhausted or budget.is_spent()
        deduplicated = _deduplicated(request, page_hits, shown, complete=last)
        matches = {each.hit.picture_id for each, _ in deduplicated.kept[:k]} - leading
        if found := _newly_shared(request, page_hits, matches, shown):
            request = replace(request, shared=(*request.shared, *found))
            continue
        full = len(deduplicated.kept) >= k
        if last or full:
            return Page(
                _first(deduplicated, k),
                page_hits.retrieval,
                by_words=request.catalogue_words is not None,
                earlier=excluded,
                cut=page_hits.cut and not full,
                stopped=0 if page_hits.exhausted or full else len(page_hits.hits),
                shared=request.shared,
            )
        budget.grow()


def _newly_shared(
    request: PageRequest, page_hits: _PageHits, pictures: Set[int], shown: Sequence[ScoredHit]
) -> tuple[SharedPicture, ...]:
    """Those of these pictures (ids) that several hits and very many products show, as far as they
    are not known yet; none where words of the catalogue are asked for, in which the products
    differ."""
    query, hits = request.query, page_hits.retrieval.candidates.hits
    if not query.fold or request.catalogue_words is not None:
        return ()
    if query.near_query is not None:
        # All products with such a picture are dropped, also those that have other pictures too.
        hits = tuple(hit for hit in hits if hit.distance > query.near_query)
    # A pool that is reranked has the products of earlier pages too.
    earlier = () if request.by_photo_and_words else {each.hit.picture_id for each in shown}
    return shared_pictures.find(
        request.data, hits, pictures, request.settings.shared_picture_products, earlier,
    )  # fmt: skip


def _find(request: PageRequest, retrieval: NearestRequest) -> RetrievalResult:
    """The nearest products; one only of those that show a shared picture."""
    hidden = tuple(each.picture_id for each in request.shared)
    result = request.data.retrieve(replace(retrieval, hidden=hidden))
    if not request.shared:
        return result
    hits = shared_pictures.merged(result.candidates.hits, request.shared)
    return replace(result, candidates=replace(result.candidates, hits=hits))


def _page_hits(request: PageRequest, size: int) -> _PageHits:
    """The first `size` hits that reach the query's minimum similarity."""
    if request.by_photo_and_words:
        return _reranked(request, size)
    if request.catalogue_words is None:
        result = _find(request, replace(request.retrieval, k=size))
        hits = result.candidates.hits
        page_hits = _PageHits(result, [(hit, hit.similarity) for hit in hits], len(hits) < size)
    else:
        read = max(min(FUSION_FACTOR * size, page_budget.MAX_CANDIDATES), size, MIN_FUSED)
        page_hits = _fused(request, size, read, *request.catalogue_words)
    minimum = request.query.min_similarity
    return page_hits if minimum is None else _at_least(page_hits, minimum)


def _at_least(page_hits: _PageHits, minimum: float) -> _PageHits:
    """The hits that are similar enough.

    Retrieval returns the nearest first. Once one of them is below the minimum, all hits above it
    are known, including those that words would find further down.
    """
    cut = _ends_below(page_hits.retrieval, minimum)
    hits = [(hit, score) for hit, score in page_hits.hits if hit.similarity >= minimum - ROUNDING]
    return replace(page_hits, hits=hits, exhausted=page_hits.exhausted or cut, cut=cut)


def _ends_below(result: RetrievalResult, minimum: float | None) -> bool:
    """Whether all products of at least this similarity are among the retrieved ones, because the
    last of these is less similar."""
    hits = result.candidates.hits
    return minimum is not None and bool(hits) and hits[-1].similarity < minimum - ROUNDING


def _fused(
    request: PageRequest, needed: int, size: int, words: WordQuery, weight: float
) -> _PageHits:
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
    if request.by_vector and _suffices(request, first, needed):
        exhausted = False
    elif request.by_vector:
        result = request.data.retrieve(replace(retrieval, k=size))
        by_vector = result.candidates.hits
        compared = request.snapshot_data.nearest_hits(retrieval, list(by_words))
        hits |= {hit.product_id: hit for hit in (*compared, *by_vector)}
        lists.append((1.0 - weight, [hit.product_id for hit in by_vector]))
        exhausted = exhausted and len(by_vector) < size
    scores = fuse(lists)
    if request.catalogue_first:
        scores = with_first(
            scores, first, keep_order=query_rewriting.has_every_word(request.reading)
        )
    return _PageHits(result, [(hits[id_], score) for id_, score in scores.items()], exhausted)


def _suffices(request: PageRequest, first: Sequence[int], needed: int) -> bool:
    """Whether the products that have all the words fill the page, so that what the model finds
    would not be shown."""
    compares = request.query.min_similarity is not None or request.query.near_query is not None
    return len(first) >= needed and query_rewriting.has_every_word(request.reading) and not compares


def _reranked(request: PageRequest, size: int) -> _PageHits:
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
    having = sum(each.words > 0 for each in pool)
    told = f"the words rank the {len(hits):,} products nearest to the photo"
    if request.catalogue_words is not None:
        told += f", {having:,} of which have any of them in the catalogue"
    earlier, minimum = set(request.earlier), request.query.min_similarity
    left = [(hit, score) for hit, score in ranked if hit.product_id not in earlier]
    if minimum is not None:
        left = [(hit, score) for hit, score in left if hit.similarity >= minimum - ROUNDING]
    cut = _ends_below(result, minimum)
    exhausted = (cut or len(hits) < pool_size) and len(left) <= size
    result = replace(result, reason=result.reason.extended(told))
    unwanted: frozenset[int] = frozenset()
    if request.catalogue_words is not None:
        ids = [hit.product_id for hit, _ in left[:size]]
        unwanted = photo_pool.with_unwanted_words(
            retrieval.connection, request.catalogue_words[0], ids
        )
    return _PageHits(result, left[:size], exhausted, cut, unwanted)


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
    return [
        PoolProduct(hit, categories.get(id_), shares.get(id_, 0.0), to_words.get(id_))
        for id_, hit in zip(ids, hits, strict=True)
    ], kinds


def _earlier(request: PageRequest) -> list[tuple[Hit, float]]:
    """The products of earlier pages with their scores, each by its picture nearest to the query."""
    if not request.query.shown:
        return []
    if request.by_vector:
        hits = request.data.earlier(request.retrieval, request.query.shown)
    else:
        connection, model = request.in_snapshot.connection, request.retrieval.model
        ids = list(products.ids(connection, request.query.shown).values())
        pairs = full_text.first_pictures(connection, model, ids) if ids else []
        hits = [Hit(*pair, nan) for pair in pairs]
    return [(hit, hit.similarity) for hit in hits]


def _deduplicated(
    request: PageRequest, page_hits: _PageHits, shown: Sequence[ScoredHit], *, complete: bool
) -> DedupResult:
    hits, unwanted = page_hits.hits, page_hits.unwanted
    if not needs_dedup(request.query) and not unwanted:
        hits = hits[: request.retrieval.k]
    scored = _scored(request, hits)
    dropped = tuple(
        Dropped(each.product.sku, UNWANTED_WORD, None, None)
        for each in scored
        if each.hit.product_id in unwanted
    )
    scored = [each for each in scored if each.hit.product_id not in unwanted]
    if not needs_dedup(request.query):
        return DedupResult(tuple((each, ()) for each in scored), dropped)
    skus = [each.product.sku for each in (*scored, *shown)]
    decided = request.data.verdicts(skus) if request.query.fold else []
    result = deduplicate(
        scored, request.query, shown=shown, verdicts=decided,
        min_spelling_similarity=request.settings.typo_similarity,
        load_pictures=request.data.pictures,
        k=request.retrieval.k, complete=complete,
    )  # fmt: skip
    return replace(result, dropped=(*dropped, *result.dropped))


def _scored(request: PageRequest, hits: Sequence[tuple[Hit, float]]) -> list[ScoredHit]:
    """Hits with their products, and with their vectors where near-duplicates are dropped."""
    by_id = request.data.products([hit.product_id for hit, _ in hits])
    vectors: Mapping[int, Vector] = {}
    if request.query.near_match is not None:
        vectors = request.data.vectors([hit.picture_id for hit, _ in hits])
    return [
        ScoredHit(hit, by_id[hit.product_id], score, vectors.get(hit.picture_id))
        for hit, score in hits
    ]


def _first(deduplicated: DedupResult, k: int) -> DedupResult:
    """The first k matches, without the products that were dropped for a later match."""
    later = {each.product.sku for each, _ in deduplicated.kept[k:]}
    dropped = tuple(drop for drop in deduplicated.dropped if drop.lost_to not in later)
    return replace(deduplicated, kept=deduplicated.kept[:k], dropped=dropped)
