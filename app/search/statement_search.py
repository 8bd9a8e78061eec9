"""Answers a query by one statement, where that is enough."""

from __future__ import annotations

from dataclasses import dataclass, replace

from app.config import Settings
from app.search.dedup import needs_dedup
from app.search.explain import SearchOutcome, StageTimer
from app.search.fast_path import FastPath, NotAnswered
from app.search.lists_data import ListsData
from app.search.matches import page_matches, region_matches
from app.search.object_queries import object_directions
from app.search.page_hits import PageRequest
from app.search.page_shortfall import of_given_up
from app.search.paging import Page, page
from app.search.query_encoder import (
    EncodedQuery,
    catalogue_words,
    has_pictures,
    round_query,
    word_readers,
)
from app.search.region_comparison import NEAREST, FastComparison
from app.search.regions import ObjectFinder, directions, with_lead
from app.search.retrieval import NearestRequest, similarities
from app.search.shortfall import all_returned, gave_up_after
from app.search.similar_listings import counted
from app.search.statement_data import StatementData
from app.search.vector_cache import PhotoObjects, VectorCache
from app.types import Build, Model, Query, Vector


def outcome(
    fast_path: FastPath,
    query: Query,
    encoded: EncodedQuery,
    timer: StageTimer,
    cache: VectorCache,
    settings: Settings,
    finder: ObjectFinder | None,
) -> SearchOutcome | None:
    """The outcome of one statement by the last build, of three for a photo whose objects are
    searched; None if more are needed, or one fails."""
    if fast_path.last_build is None:
        return None
    model, build = fast_path.last_build
    if not _is_for(query, encoded, model):
        return None
    search = _Search(fast_path, query, encoded, timer, cache, settings, model, build)
    try:
        if encoded.further:
            return search.object()
        if finder is None or not finder.applies(query, encoded):
            return search.whole()
        return search.with_objects(finder)
    except NotAnswered:
        return None


@dataclass(frozen=True, slots=True)
class _Search:
    """A search by the last build. Its methods raise NotAnswered."""

    fast_path: FastPath
    query: Query
    encoded: EncodedQuery
    timer: StageTimer
    cache: VectorCache
    settings: Settings
    model: Model
    build: Build

    def whole(self) -> SearchOutcome | None:
        """The outcome of one statement; None if it has to be explained by counting."""
        query, model = self.query, self.model
        data = StatementData(self.fast_path, model, self.build, query, self.settings)
        with self.timer.stage("search"):
            given, excluded = query.vector, tuple[int, ...]()
            if query.sku is not None:
                own, given = data.own_vector(query.sku)
                excluded = (own,)
            vector = round_query(self.encoded.direction(query, given), model)
            target = NearestRequest(model, vector, query.k, query.filters, excluded)
            result_page = page(PageRequest(target, query, True, None, data, self.settings))
        return self._outcome(data, result_page, vector)

    def object(self) -> SearchOutcome | None:
        """The outcome of one object of a photo, as `whole`."""
        query, model = self.query, self.model
        vectors = object_directions(query, self.encoded, model)
        data = ListsData(
            self.fast_path, model, self.build, query, self.settings, (vectors,), merged=1
        )
        with self.timer.stage("search"):
            target = NearestRequest(model, vectors[0], query.k, query.filters, also=vectors[1:])
            result_page = page(PageRequest(target, query, True, None, data, self.settings))
        return self._outcome(data, result_page, vectors[0])

    def with_objects(self, finder: ObjectFinder) -> SearchOutcome | None:
        """The outcome of the whole photo if that leaves no doubt, else that of the photo and its
        objects; None as `whole`."""
        known = finder.known(self.query, self.model, self.cache)
        if known is not None:
            return self._merged(finder, known) if known.objects else self.whole()
        whole = self.whole()
        if whole is None:
            return None
        # Other parts of the query change the similarities, and a filter the best of them.
        encoded, query = self.encoded, self.query
        alone = not (query.filters or encoded.words is not None or encoded.without or query.shown)
        hits = whole.retrieval.candidates.hits
        enough = alone and max(len(hits), query.k) >= NEAREST
        nearest = similarities(hits, NEAREST) if enough else None
        comparison = FastComparison(self.fast_path, self.model, self.build, nearest)
        with self.timer.stage("objects"):
            if alone and finder.lead(self.model) is not None:
                found, undecided = (
                    finder.look(comparison, query, encoded.pictures[0], self.cache),
                    True,
                )
            else:
                found, undecided = finder.find(comparison, query, encoded, self.cache), False
        if not found.objects:
            finder.keep(query, self.model, self.cache, found)
            return whole
        return self._merged(finder, found, undecided=undecided)

    def _merged(
        self, finder: ObjectFinder, found: PhotoObjects, *, undecided: bool = False
    ) -> SearchOutcome | None:
        """The outcome of a photo and its objects, in one statement, which also decides whether they
        count in the merged list where that is `undecided`."""
        query, model, lead = self.query, self.model, finder.lead(self.model)
        vector = round_query(self.encoded.direction(query), model)
        each_object = [directions(each, query, self.encoded, model) for each in found.objects]
        merged = 1 + sum(each.merged for each in found.objects)
        data = ListsData(
            self.fast_path, model, self.build, query, self.settings, ((vector,), *each_object),
            merged,
        )  # fmt: skip
        target = NearestRequest(model, vector, query.k, query.filters)
        with self.timer.stage("search"):
            if undecided:
                assert lead is not None
                found = with_lead(found, leads=data.read(target, lead))
                finder.keep(query, model, self.cache, found)
            also = tuple(
                each
                for own, vectors in zip(found.objects, each_object, strict=True)
                for each in vectors
                if own.merged
            )
            target = replace(target, also=also)
            request = PageRequest(target, query, True, None, data, self.settings)
            result_page = page(request)
        outcome = self._outcome(data, result_page, vector)
        if outcome is None:
            return None
        with self.timer.stage("search"):
            boxes = [each.box for each in found.objects]
            regions = region_matches(request, list(zip(boxes, each_object, strict=True)))
        return replace(outcome, regions=regions)

    def _outcome(
        self, data: StatementData, result_page: Page, vector: Vector
    ) -> SearchOutcome | None:
        """The outcome of a page; None if it has to be explained by counting."""
        query = self.query
        with self.timer.stage("details"):
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
            matches, result_page.retrieval, self.model, vector, data.lag,
            result_page.deduplicated.dropped, word_readers(self.encoded, catalogue=False), short,
            hints, not_tried=result_page.deduplicated.not_tried,
        )  # fmt: skip


def _is_for(query: Query, encoded: EncodedQuery, model: Model) -> bool:
    """Whether one statement under this model may answer the query: it has a direction, and no words
    that are searched in the catalogue, name colours or re-rank."""
    if (query.words and has_pictures(query)) or query.model_id not in (None, model.id):
        return False
    if encoded.colours is not None:
        return False
    if query.vector is not None and query.model_id is None:
        return False
    if encoded.fingerprint not in (None, model.fingerprint):
        return False
    if query.vector is not None or query.sku is not None:
        return True
    return encoded.fingerprint is not None and catalogue_words(query, encoded) is None
