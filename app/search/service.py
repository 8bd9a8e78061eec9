"""SearchService: answers one query per call, from one snapshot of the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np
from sqlalchemy import Connection, Engine

from app.config import Settings
from app.db.engine import check_schema, snapshot
from app.db.queries import models, partitions, products
from app.errors import BadInput, ModelMismatch, ModelNotMaintained, ReplicaConflict
from app.index.file_store import IndexFiles
from app.search import (
    filter_values,
    query_rewriting,
    similar_listings,
    statement_search,
    validation,
)
from app.search.admission import Admission
from app.search.confidence import judged
from app.search.explain import SearchOutcome, StageTimer, build_plan
from app.search.fast_path import FastPath
from app.search.german_spelling import to_encode
from app.search.index_swap import OpenBuild, open_build
from app.search.matches import page_matches, region_matches
from app.search.object_queries import ObjectQueries, object_directions
from app.search.page_data import SnapshotData
from app.search.page_hits import PageRequest
from app.search.page_shortfall import hints_of_page, of_page
from app.search.paging import page
from app.search.query_encoder import (
    EncodedQuery,
    QueryEncoder,
    catalogue_words,
    has_pictures,
    product_vector,
    round_query,
    with_unknown,
    word_readers,
)
from app.search.query_sampler import QuerySampler
from app.search.regions import ObjectFinder, directions, photo_objects
from app.search.retrieval import RetrievalRequest, RetrievalResult
from app.search.similar_listings import counted
from app.search.similarity_labels import CalibrationCache, labelled
from app.search.vector_cache import PhotoObject, VectorCache
from app.types import (
    Calibration,
    Filters,
    Match,
    Model,
    Plan,
    Query,
    SearchResult,
    UnknownValue,
)

MAX_MODEL_CHANGES = 3
"""A search is repeated this often when the active model changes meanwhile."""


class ActiveModelChanged(ModelMismatch):
    """The active model is no longer the one this query was encoded for."""


class SearchService:
    """Finds products. Thread-safe; holds no state that a result depends on.

    `fast_path` answers common queries in one statement. `sampler` records query vectors,
    `calibrations` label similarities and tell what is close, `objects` finds objects in pictures,
    and `observe` is called with the plan of every search.
    """

    def __init__(
        self,
        engine: Engine,
        encoder: QueryEncoder,
        files: IndexFiles,
        settings: Settings,
        *,
        admission: Admission | None = None,
        fast_path: FastPath | None = None,
        sampler: QuerySampler | None = None,
        calibrations: CalibrationCache | None = None,
        objects: ObjectFinder | None = None,
        observe: Callable[[Plan], None] | None = None,
    ) -> None:
        self._engine = engine
        self._encoder = encoder
        self._files = files
        self._settings = settings
        self._admission = admission or Admission(settings.places, settings.search_wait_s)
        self._fast_path = fast_path
        self._sampler = sampler
        self._calibrations = calibrations
        self._objects = objects
        self._observe = observe
        self._queries = ObjectQueries(encoder, self._find_objects if objects else None)
        self._schema_checked = False

    def search(self, query: Query, cache: VectorCache | None = None) -> SearchResult:
        """The `query.k` products most similar to the query, best first, and the plan.

        Sees every product committed before the call and none deleted before it. Fewer than k come
        back only if no more match, or if the page was given up because nearly all of very many
        products were dropped; `plan.shortfall` gives the reason. Pictures in `cache` are not
        encoded again, and new ones are added to it.

        Raises BadInput and its kinds (BadImage, UnknownProduct, NoWords) for an invalid query,
        Busy if too many searches run at a time, NoModel, ModelMismatch, SchemaMismatch and
        DatabaseUnavailable.
        """
        self._check(query)
        cache = cache or VectorCache()
        with self._encoder.decoding(self._queries.to_decode(query, cache), cache) as pictures:
            return pictures.repeated(lambda: self._admitted_search(query, cache))

    def _admitted_search(self, query: Query, cache: VectorCache) -> SearchResult:
        with self._admission.admitted() as waited_s:
            for _ in range(MAX_MODEL_CHANGES):
                try:
                    return self._search(query, cache, waited_s)
                except ActiveModelChanged:
                    self._encoder.refresh_model()
            return self._search(query, cache, waited_s)

    def open_index(self) -> None:
        """Open the index of the active model, so that the first search need not. Raises NoModel and
        DatabaseUnavailable."""
        self._check_schema()
        with snapshot(self._engine) as connection:
            model, _ = models.require_active_and_lag(connection)
            anywhere = np.ones(model.dim, np.float32)
            request = RetrievalRequest(model, anywhere, 1, connection=connection)
            found = open_build(request, self._files)
        if self._fast_path is not None and isinstance(found, OpenBuild):
            self._fast_path.last_build = (model, found.build)

    @contextmanager
    def opened(self, query: Query, cache: VectorCache | None = None) -> Iterator[PageRequest]:
        """A query, checked and encoded, as a request in one snapshot: to ask more about its results
        than the page. Raises what `search` raises."""
        self._check(query)
        cache = cache or VectorCache()
        decoding = self._encoder.decoding(self._queries.to_decode(query, cache), cache)
        with decoding as pictures, ExitStack() as stack:
            request = pictures.repeated(lambda: stack.enter_context(self._opened(query, cache)))
            yield request

    @contextmanager
    def _opened(self, query: Query, cache: VectorCache) -> Iterator[PageRequest]:
        with self._admission.admitted() as waited_s:
            encoded = self._queries.encode(query, StageTimer(waited_s), cache)
            self._check_schema()
            with snapshot(self._engine) as connection:
                partitions.lock_attached(connection)
                model, _ = self._model(connection, query, encoded)
                objects = self._photo_objects(connection, model, query, encoded, cache)
                yield self._page_request(connection, model, query, encoded, objects)

    def _search(self, query: Query, cache: VectorCache, waited_s: float) -> SearchResult:
        timer = StageTimer(waited_s)
        encoded = self._queries.encode(query, timer, cache)
        outcome = self._in_one_statement(query, encoded, timer, cache)
        if outcome is None:
            try:
                outcome = self._in_one_snapshot(query, encoded, timer, cache)
            except ReplicaConflict:  # a new snapshot does not hold up the replica as this one did
                outcome = self._in_one_snapshot(query, encoded, timer, cache)
        if query.fold and query.listings:
            with timer.stage("details"):
                matches = self._listed(outcome.matches, outcome.model)
            outcome = replace(outcome, matches=matches)
        if self._sampler and encoded.has_direction and outcome.lag is None:
            self._sampler.offer(outcome.model.id, outcome.vector)
        if outcome.reading is not None and encoded.words is not None:
            told = with_unknown(outcome.reading, to_encode(query), outcome.model)
            outcome = replace(outcome, reading=told)
        plan = build_plan(outcome, query, timer)
        if len(outcome.matches) < query.k and filter_values.may_be_unknown(
            query.filters, found=bool(outcome.matches)
        ):
            plan = replace(plan, unknown=self._unknown_values(query.filters))
        if self._observe:
            self._observe(plan)
        calibrations = self._calibrations_for(outcome, query, encoded)
        outcome = labelled(outcome, calibrations)
        confidence, close, regions = None, None, outcome.regions
        if query.picture and not (query.words or encoded.without or query.shown):
            found = photo_objects(query, outcome.matches, outcome.model, cache)
            confidence, close, regions = judged(
                outcome.matches, regions, outcome.model, found, calibrations
            )
        return SearchResult(outcome.matches, plan, outcome.dropped, regions, confidence, close)

    def similar_listings(self, match: Match) -> Match:
        """A match of a folded search with its similar listings, and their number, as they are now.
        Raises NoModel and DatabaseUnavailable."""
        with snapshot(self._engine) as connection:
            model, _ = models.require_active_and_lag(connection)
        return self._listed([match], model)[0]

    def _listed(self, matches: Sequence[Match], model: Model) -> tuple[Match, ...]:
        return similar_listings.read(self._engine, model, self._files, self._settings, matches)

    def _calibrations_for(
        self, outcome: SearchOutcome, query: Query, encoded: EncodedQuery
    ) -> Mapping[str | None, Calibration]:
        """The calibrations of the model by category, if the query is a picture alone."""
        if self._calibrations is None or query.words or encoded.without:
            return {}
        return self._calibrations.calibrations(outcome.model.id)

    def _unknown_values(self, filters: Filters) -> tuple[UnknownValue, ...]:
        """The values of the filters that no product has."""
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            return filter_values.unknown(connection, filters)

    def _in_one_statement(
        self, query: Query, encoded: EncodedQuery, timer: StageTimer, cache: VectorCache
    ) -> SearchOutcome | None:
        """The outcome of the fast path; None if the query needs more, or the fast path fails."""
        if self._fast_path is None:
            return None
        return statement_search.outcome(
            self._fast_path, query, encoded, timer, cache, self._settings, self._objects
        )

    def _find_objects(self, query: Query, encoded: EncodedQuery, cache: VectorCache) -> None:
        """Put the objects in a query's photo in the cache."""
        self._check_schema()
        with snapshot(self._engine) as connection:
            partitions.lock_attached(connection)
            model, _ = self._model(connection, query, encoded)
            self._photo_objects(connection, model, query, encoded, cache)

    def _photo_objects(
        self,
        connection: Connection,
        model: Model,
        query: Query,
        encoded: EncodedQuery,
        cache: VectorCache,
    ) -> tuple[PhotoObject, ...]:
        """The objects to search by beside the whole picture."""
        if self._objects is None or not self._objects.applies(query, encoded):
            return ()
        comparison = self._objects.in_snapshot(connection, model)
        return self._objects.find(comparison, query, encoded, cache).objects

    def _in_one_snapshot(
        self, query: Query, encoded: EncodedQuery, timer: StageTimer, cache: VectorCache
    ) -> SearchOutcome:
        """The outcome of any query, in several statements of one snapshot."""
        self._check_schema()
        with snapshot(self._engine) as connection:
            partitions.lock_attached(connection)
            with timer.stage("search"):
                model, lag = self._model(connection, query, encoded)
            with timer.stage("objects"):
                objects = self._photo_objects(connection, model, query, encoded, cache)
            with timer.stage("search"):
                request = self._page_request(connection, model, query, encoded, objects)
                result_page = page(request)
            with timer.stage("details"):
                matches = page_matches(request.data, result_page)
                if query.fold:
                    matches = counted(request.data, matches)
            with timer.stage("search"):
                searched = [(each.box, directions(each, query, encoded, model)) for each in objects]
                regions = region_matches(request, searched)
            short = of_page(request, result_page)
            hints = hints_of_page(connection, query, result_page)
            if lag is not None and not partitions.is_attached_now(connection, model.id):
                raise ActiveModelChanged(f"{model.name} was dropped meanwhile. Try again.")
            self._remember_build(request.in_snapshot, result_page.retrieval)
        return SearchOutcome(
            matches, result_page.retrieval, model, request.retrieval.vector, lag,
            result_page.deduplicated.dropped, word_readers(encoded, catalogue=result_page.by_words),
            short, hints, regions, request.reading, result_page.deduplicated.not_tried,
        )  # fmt: skip

    def _remember_build(self, request: RetrievalRequest, result: RetrievalResult) -> None:
        """Note the build that the fast path uses next."""
        if self._fast_path is None:
            return
        build = result.build
        if build is None and request.filters and self._fast_path.last_build is None:
            opened = open_build(request, self._files)
            build = opened.build if isinstance(opened, OpenBuild) else None
        if build is not None:
            self._fast_path.last_build = (request.model, build)

    def _check(self, query: Query) -> None:
        validation.check(query)
        if not 1 <= query.k <= self._settings.max_k:
            raise BadInput(
                f"k is {query.k}; ask for 1 to {self._settings.max_k} products at a time."
            )

    def _check_schema(self) -> None:
        """Once, before the snapshot: an older schema lacks the tables that a search locks."""
        if not self._schema_checked:
            with snapshot(self._engine) as connection:
                check_schema(connection)
            self._schema_checked = True

    def _model(
        self, connection: Connection, query: Query, encoded: EncodedQuery
    ) -> tuple[Model, float | None]:
        """The model to search under, and how many seconds a replica is behind.

        Raises an error if the query's vectors belong to another model.
        """
        model, lag = models.require_active_and_lag(connection)
        vector_without_model = query.vector is not None and query.model_id is None
        if vector_without_model or query.model_id not in (None, model.id):
            model = _maintained(connection, query.model_id, model)
        if encoded.fingerprint not in (None, model.fingerprint):
            raise ActiveModelChanged(f"The active model is now {model.name}. Try again.")
        return model, lag

    def _page_request(
        self,
        connection: Connection,
        model: Model,
        query: Query,
        encoded: EncodedQuery,
        objects: Sequence[PhotoObject] = (),
    ) -> PageRequest:
        excluded: tuple[int, ...] = ()
        given = query.vector
        if query.sku is not None:
            product_id = products.require_id(connection, query.sku)
            given = product_vector(connection, model, query.sku, product_id)
            excluded = (product_id,)
        direction = encoded.direction(query, given)
        compares = query.near_query is not None or query.min_similarity is not None
        if direction is None and (encoded.without or compares):
            raise BadInput(
                "Words that are looked up in the catalogue only have no picture to compare with: "
                "leave out what it should not be like, the distance to the query and the minimum "
                "similarity, or add a picture or a sku."
            )
        by_vector = direction is not None
        if direction is None:
            direction = np.ones(model.dim, np.float32)  # a placeholder that nothing reads
        also = [
            vector
            for each in objects
            if each.merged
            for vector in directions(each, query, encoded, model)
        ]
        also += object_directions(query, encoded, model)[1:]
        request = RetrievalRequest(
            model, round_query(direction, model), query.k, query.filters, excluded, tuple(also),
            connection=connection,
        )  # fmt: skip
        text_vector = None
        if encoded.words is not None and has_pictures(query):
            text_vector = round_query(encoded.words, model)
        whole_text = encoded.whole_words
        if whole_text is not None:
            if not has_pictures(query):
                whole_text = replace(encoded, words=whole_text).direction(query)
            whole_text = round_query(whole_text, model)
        page_request = PageRequest(
            request, query, by_vector, None,
            SnapshotData(connection, model, self._files, self._settings), self._settings,
            text_vector, catalogue_first=encoded.catalogue_first, colours=encoded.colours,
            whole_text=whole_text,
        )  # fmt: skip
        words = catalogue_words(query, encoded)
        if words is None:
            return page_request
        read = query_rewriting.read(connection, words[0], in_german=query.words_language == "de")
        if (
            has_pictures(query)
            and encoded.catalogue_first
            and read.query.terms
            and query_rewriting.has_every_word(read.reading)
        ):
            page_request = replace(page_request, text_vector=None, colours=None)
        return replace(page_request, catalogue_words=(read.query, words[1]), reading=read.reading)


def _maintained(connection: Connection, model_id: int | None, active: Model) -> Model:
    """The maintained model with this id. Raises ModelNotMaintained if there is none."""
    model = None if model_id is None else models.maintained_by_id(connection, model_id)
    if model is None:
        raise ModelNotMaintained(
            f"The query is for model {model_id}, which is not kept up to date; the active model is "
            f"{active.id} ({active.name}). Encode it again under the active model."
        )
    return model
