"""Fills one page of matches: retrieves more hits until k remain after deduplication.

Dropped and folded products are replaced by the next ones, so a page is short only if there are no
more products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from math import nan

from app.db.queries import full_text, products
from app.search import shared_pictures
from app.search.dedup import UNWANTED_WORD, DedupResult, ScoredHit, deduplicate, needs_dedup
from app.search.page_budget import PageBudget
from app.search.page_hits import PageHits, PageRequest, page_hits_of
from app.search.retrieval import RetrievalResult
from app.search.shared_pictures import SharedPicture
from app.types import Dropped, Hit, Vector


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
        page_hits = page_hits_of(request, budget.size)
        hits = page_hits.retrieval.candidates.hits
        # All of a pool that is reranked: it must be the same for each page.
        leading = shared_pictures.leading(hits, len(hits) if request.ranks_pool else k)
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
    request: PageRequest, page_hits: PageHits, pictures: Set[int], shown: Sequence[ScoredHit]
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
    earlier = () if request.ranks_pool else {each.hit.picture_id for each in shown}
    return shared_pictures.find(
        request.data, hits, pictures, request.settings.shared_picture_products, earlier,
    )  # fmt: skip


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
    request: PageRequest, page_hits: PageHits, shown: Sequence[ScoredHit], *, complete: bool
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
    return replace(result, dropped=(*dropped, *result.dropped)) if dropped else result


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
    if len(deduplicated.kept) <= k:
        return deduplicated
    later = {each.product.sku for each, _ in deduplicated.kept[k:]}
    dropped = tuple(drop for drop in deduplicated.dropped if drop.lost_to not in later)
    return replace(deduplicated, kept=deduplicated.kept[:k], dropped=dropped)
