"""SearchService: one call answers one query from one snapshot of the database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine

from app.config import Settings
from app.db.engine import check_schema, snapshot
from app.db.queries import models, nearest, partitions, products
from app.errors import BadInput, ModelMismatch, ModelNotKept, NoModel, ReplicaConflict
from app.index.file_store import IndexFiles
from app.search import validation
from app.search.admission import Admission
from app.search.dedup import asks_for_shape, similarity_of
from app.search.explain import SearchOutcome, StageTimer, plan_of, stopped
from app.search.fast_path import FastPath
from app.search.filters import meant
from app.search.paging import PageRequest, page
from app.search.query_encoder import (
    Encoded,
    QueryEncoder,
    _by_words,
    _readers,
    _rounded,
    _vector_of,
)
from app.search.query_sampler import QuerySampler
from app.search.retrieval import (
    OpenBuild,
    RetrievalRequest,
    RetrievalResult,
    build_result,
    filtered_build_result,
    open_build,
)
from app.search.similarity_labels import SimilarityLabeler
from app.search.vector_cache import VectorCache
from app.types import Folded, Hit, Match, Model, Plan, Query, SearchResult

CHANGES = 3
"""How often a search begins again when the active model changes under it."""


class ActiveModelChanged(ModelMismatch):
    """The active model is no longer the one this query was encoded for."""


class SearchService:
    """Finds products. Safe to use from several threads; holds no state that matters."""

    def __init__(
        self,
        engine: Engine,
        encoder: QueryEncoder,
        files: IndexFiles,
        settings: Settings,
        *,
        admission: Admission | None = None,
        quick: FastPath | None = None,
        sampler: QuerySampler | None = None,
        meanings: SimilarityLabeler | None = None,
        observe: Callable[[Plan], None] | None = None,
    ) -> None:
        self._engine = engine
        self._encoder = encoder
        self._files = files
        self._settings = settings
        self._admission = admission or Admission(settings.places, settings.search_wait_s)
        self._quick = quick
        self._sampler = sampler
        self._meanings = meanings
        self._observe = observe
        self._schema_checked = False

    def search(self, query: Query, memory: VectorCache | None = None) -> SearchResult:
        """The `query.k` products most similar to the query, best first, and how they were found.

        Sees every product committed before the call and nothing deleted before it. Fewer than k
        come back only if there are no more that the query lets through, or nearly all of very many
        were dropped; `plan.shortfall` says which. Pictures that `memory` knows are not encoded
        again, and it learns the others.

        Raises BadInput and its kinds (BadImage, UnknownProduct, NoWords) for a query that makes no
        sense, Busy where too many searches run at a time, NoModel, ModelMismatch, SchemaMismatch
        and DatabaseUnavailable.
        """
        self._check(query)
        with self._admission.admitted() as waited_s:
            for _ in range(CHANGES):
                try:
                    return self._searched(query, memory, waited_s)
                except ActiveModelChanged:
                    self._encoder.renew()
            return self._searched(query, memory, waited_s)

    def _searched(self, query: Query, memory: VectorCache | None, waited_s: float) -> SearchResult:
        clock = StageTimer(waited_s)
        encoded = self._encoder.encode(query, clock, memory)
        found = self._at_once(query, encoded, clock)
        if found is None:
            try:
                found = self._in_turn(query, encoded, clock)
            except ReplicaConflict:  # a later snapshot does not hold up what this one did
                found = self._in_turn(query, encoded, clock)
        if self._sampler and encoded.asks and found.lag is None:
            self._sampler.offer(found.model.id, found.vector)
        plan = plan_of(found, query, clock)
        if self._observe:
            self._observe(plan)
        matches = found.matches
        if self._meanings and not (query.words or encoded.without):
            matches = self._meanings.spoken(matches, found.model.id)
        return SearchResult(matches, plan, found.dropped)

    def _at_once(self, query: Query, encoded: Encoded, clock: StageTimer) -> SearchOutcome | None:
        """The answer in one statement, if nothing about the query needs more."""
        known = self._quick.last_build if self._quick is not None else None
        if known is None or query.sku or query.min_similarity is not None:
            return None
        if asks_for_shape(query):
            return None
        model, build = known
        if query.model_id not in (None, model.id) or (
            query.vector is not None and query.model_id is None
        ):
            return None
        if encoded.fingerprint not in (None, model.fingerprint):
            return None
        if query.vector is not None:
            vector = _rounded(encoded.towards(query, query.vector), model)
        elif encoded.fingerprint is not None and _by_words(query, encoded) is None:
            vector = _rounded(encoded.towards(query), model)
        else:
            return None
        assert self._quick is not None
        with clock.stage("search"):
            only = nearest.filter_clause(query.filters)
            found = self._quick.find(model, build, vector, query.k, only)
        if found is None:
            return None
        if query.filters.attributes and len(found.candidates.hits) < query.k:
            return None  # for what else there is to say about the filter
        if only.condition:
            answer = filtered_build_result(
                found.candidates, build, found.delta_rows, deeper=found.deeper
            )
        else:
            answer = build_result(found.candidates, build, found.delta_rows)
        with clock.stage("details"):
            rows = {row.product_id: row for row in found.rows}
            matches = _matches([(hit, ()) for hit in answer.candidates.hits], rows)
        readers = _readers(encoded, catalogue=False)
        return SearchOutcome(matches, answer, model, vector, found.lag, words=readers)

    def _in_turn(self, query: Query, encoded: Encoded, clock: StageTimer) -> SearchOutcome:
        """The answer of whatever path can give it, all in one snapshot."""
        self._check_schema()
        with snapshot(self._engine) as connection:
            partitions.lock_attached(connection)
            with clock.stage("search"):
                model, lag = self._model(connection, query, encoded)
                asked = self._asked(connection, model, query, encoded)
                found = page(asked)
            with clock.stage("details"):
                kept = [(each.hit, folded) for each, folded in found.shaped.kept]
                pairs = [(hit.product_id, hit.picture_id) for hit, _ in kept]
                matches = _matches(kept, products.details(connection, pairs))
            unknown = []
            if not matches and query.filters.attributes:
                unknown = products.unknown_attributes(connection, list(query.filters.attributes))
            if lag is not None and not partitions.is_attached_now(connection, model.id):
                raise ActiveModelChanged(f"{model.name} was dropped meanwhile. Try again.")
            self._learn(asked.ask, found.answer)
        return SearchOutcome(
            matches, found.answer, model, asked.ask.vector, lag,
            found.shaped.dropped, _readers(encoded, found.words),
            (*map(meant, unknown), *stopped(found.stopped)), found.cut,
        )  # fmt: skip

    def _learn(self, ask: RetrievalRequest, answer: RetrievalResult) -> None:
        """Note the build that the next search may go on with."""
        if self._quick is None:
            return
        build = answer.build
        if build is None and ask.filters and self._quick.last_build is None:
            found = open_build(ask, self._files)
            build = found.build if isinstance(found, OpenBuild) else None
        if build is not None:
            self._quick.last_build = (ask.model, build)

    def _check(self, query: Query) -> None:
        validation.check(query)
        if not 1 <= query.k <= self._settings.max_k:
            raise BadInput(
                f"k is {query.k}; ask for 1 to {self._settings.max_k} products at a time."
            )

    def _check_schema(self) -> None:
        """Once, and before the snapshot: an older schema lacks what a search would lock."""
        if not self._schema_checked:
            with snapshot(self._engine) as connection:
                check_schema(connection)
            self._schema_checked = True

    def _model(
        self, connection: Connection, query: Query, encoded: Encoded
    ) -> tuple[Model, float | None]:
        """The active model, once it is certain that the query's vector is one of its own, and
        how many seconds a replica is behind."""
        model, lag = models.active_and_lag(connection)
        if model is None:
            raise NoModel()
        vectors_own = query.vector is not None and query.model_id is None
        if vectors_own or query.model_id not in (None, model.id):
            model = _maintained(connection, query.model_id, model)
        if encoded.fingerprint not in (None, model.fingerprint):
            raise ActiveModelChanged(f"The active model is now {model.name}. Try again.")
        return model, lag

    def _asked(
        self, connection: Connection, model: Model, query: Query, encoded: Encoded
    ) -> PageRequest:
        excluded: tuple[int, ...] = ()
        of_product = query.vector
        if query.sku is not None:
            product_id = products.require_id(connection, query.sku)
            of_product = _vector_of(connection, model, query.sku, product_id)
            excluded = (product_id,)
        towards = encoded.towards(query, of_product)
        compared = query.near_query is not None or query.min_similarity is not None
        if towards is None and (encoded.without or compared):
            raise BadInput(
                "Words that are looked up in the catalogue only have no picture to compare with: "
                "leave out what it should not be like, the distance to the query and the minimum "
                "similarity, or add a picture or a sku."
            )
        vector = _rounded(np.ones(model.dim, np.float32) if towards is None else towards, model)
        ask = RetrievalRequest(connection, model, vector, query.k, query.filters, excluded)
        words = _by_words(query, encoded)
        return PageRequest(ask, query, towards is not None, words, self._files, self._settings)


def _maintained(connection: Connection, model_id: int | None, active: Model) -> Model:
    """The model a query names. Raises ModelNotKept for one that is not kept up to date."""
    found = None if model_id is None else models.by_id(connection, model_id)
    if found is None:
        raise ModelNotKept(
            f"The query is for model {model_id}, which is not kept up to date; the active model is "
            f"{active.id} ({active.name}). Encode it again under the active model."
        )
    return found


def _matches(
    kept: Sequence[tuple[Hit, tuple[Folded, ...]]], rows: Mapping[int, Any]
) -> tuple[Match, ...]:
    """The hits with the details in the rows of their products (id), and what is folded in."""
    return tuple(
        Match(
            rank=rank,
            product=products.product_from_row(rows[hit.product_id]),
            product_id=hit.product_id,
            picture_id=hit.picture_id,
            similarity=similarity_of(hit),
            image=rows[hit.product_id].uri,
            thumbnail=bytes(rows[hit.product_id].thumbnail),
            folded=folded,
        )
        for rank, (hit, folded) in enumerate(kept, start=1)
    )
