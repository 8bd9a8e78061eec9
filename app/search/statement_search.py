"""Answers a query by one statement, where that is enough."""

from __future__ import annotations

from app.config import Settings
from app.search.dedup import needs_dedup
from app.search.explain import SearchOutcome, StageTimer
from app.search.fast_path import FastPath, NotAnswered
from app.search.matches import page_matches
from app.search.page_shortfall import of_given_up
from app.search.paging import PageRequest, page
from app.search.query_encoder import (
    EncodedQuery,
    catalogue_words,
    has_pictures,
    round_query,
    word_readers,
)
from app.search.regions import ObjectFinder
from app.search.retrieval import NearestRequest
from app.search.shortfall import all_returned, gave_up_after
from app.search.similar_listings import counted
from app.search.statement_data import StatementData
from app.search.vector_cache import VectorCache
from app.types import Model, Query


def outcome(
    fast_path: FastPath,
    query: Query,
    encoded: EncodedQuery,
    timer: StageTimer,
    cache: VectorCache,
    settings: Settings,
    objects: ObjectFinder | None,
) -> SearchOutcome | None:
    """The outcome of one statement by the last build; None if several are needed, or it fails."""
    if fast_path.last_build is None:
        return None
    model, build = fast_path.last_build
    if not _is_for(query, encoded, model):
        return None
    data = StatementData(fast_path, model, build, query, settings)
    try:
        found = _outcome(query, encoded, timer, data, settings)
    except NotAnswered:
        return None
    if found is None or objects is None:
        return found
    whole = objects.is_whole(query, encoded, found.matches, model, cache)
    return found if whole else None


def _outcome(
    query: Query, encoded: EncodedQuery, timer: StageTimer, data: StatementData, settings: Settings
) -> SearchOutcome | None:
    """The outcome as from `data`, None if it has to be explained by counting. Raises
    NotAnswered."""
    model = data.model
    with timer.stage("search"):
        given, excluded = query.vector, tuple[int, ...]()
        if query.sku is not None:
            own, given = data.own_vector(query.sku)
            excluded = (own,)
        vector = round_query(encoded.direction(query, given), model)
        target = NearestRequest(model, vector, query.k, query.filters, excluded)
        result_page = page(PageRequest(target, query, True, None, data, settings))
    with timer.stage("details"):
        matches = page_matches(data, result_page)
        if query.fold:
            matches = counted(data, matches)
    short, filtered, hints = None, bool(query.filters), tuple[str, ...]()
    if result_page.stopped:
        short = of_given_up(query, result_page)
        hints = (gave_up_after(result_page.stopped, query),)
    elif len(matches) < query.k:
        plain = not (needs_dedup(query) or query.sku or query.shown or result_page.cut)
        if not plain or query.filters.attributes or (filtered and not matches):
            return None  # several statements count the causes, and find unknown attributes
        short = all_returned(len(matches), filtered=filtered)
    return SearchOutcome(
        matches, result_page.retrieval, model, vector, data.lag, result_page.deduplicated.dropped,
        word_readers(encoded, catalogue=False), short, hints,
        not_tried=result_page.deduplicated.not_tried,
    )  # fmt: skip


def _is_for(query: Query, encoded: EncodedQuery, model: Model) -> bool:
    """Whether one statement under this model may answer the query: it has a direction, and no words
    that are searched in the catalogue or re-rank."""
    if (query.words and has_pictures(query)) or query.model_id not in (None, model.id):
        return False
    if query.vector is not None and query.model_id is None:
        return False
    if encoded.fingerprint not in (None, model.fingerprint):
        return False
    if query.vector is not None or query.sku is not None:
        return True
    return encoded.fingerprint is not None and catalogue_words(query, encoded) is None
