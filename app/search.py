"""SearchService: one call answers one query from one snapshot of the database."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image
from sqlalchemy import Connection, Engine

from app.config import Settings
from app.database import check_schema, snapshot
from app.encoders import Encoder
from app.errors import BadInput, ModelMismatch, NoModel, NoWords, ReplicaConflict, UnknownProduct
from app.filters import check_text
from app.index_files import IndexFiles
from app.meanings import Meanings
from app.paths import Answer, Ask, by_build, find
from app.quick import QuickSearch
from app.sampling import QuerySampler
from app.store import models, pictures, products
from app.values import Match, Model, Plan, Query, SearchResult, Vector


class Decoder(Protocol):
    """Bytes to an RGB picture whose sides stay at least `at_least` pixels; raises BadImage."""

    def __call__(self, data: bytes, *, at_least: int | None = None) -> Image.Image: ...


class SearchService:
    """Finds products. Safe to use from several threads; holds no state that matters.

    `encoder` loads the encoder of the active model when first called; `decoder` reads pictures the
    operator vouches for and `strange_decoder` those of anybody.
    """

    def __init__(
        self,
        engine: Engine,
        encoder: Callable[[], Encoder],
        files: IndexFiles,
        settings: Settings,
        *,
        decoder: Decoder,
        strange_decoder: Decoder,
        quick: QuickSearch | None = None,
        sampler: QuerySampler | None = None,
        meanings: Meanings | None = None,
        observe: Callable[[Plan], None] | None = None,
    ) -> None:
        self._engine = engine
        self._encoder = encoder
        self._files = files
        self._settings = settings
        self._decoders = {False: decoder, True: strange_decoder}
        self._quick = quick
        self._sampler = sampler
        self._meanings = meanings
        self._observe = observe
        self._schema_checked = False

    def search(self, query: Query) -> SearchResult:
        """The `query.k` products most similar to the query, best first, and how they were found.

        Sees every product committed before the call and nothing deleted before it. Fewer than k
        come back only if there are no more, and then `plan.shortfall` says so.

        Raises BadInput and its kinds (BadImage, UnknownProduct, NoWords) for a query that makes no
        sense, NoModel, ModelMismatch, SchemaMismatch and DatabaseUnavailable.
        """
        self._check(query)
        clock = _Clock()
        encoded = self._encode(query, clock)
        found = self._at_once(query, encoded, clock)
        if found is None:
            try:
                found = self._in_turn(query, encoded, clock)
            except ReplicaConflict:  # a later snapshot does not hold up what this one did
                found = self._in_turn(query, encoded, clock)
        if self._sampler and encoded is not None and found.lag is None:
            self._sampler.offer(found.model.id, found.vector)
        plan = _plan(found, query, clock)
        if self._observe:
            self._observe(plan)
        if self._meanings and query.words is None:
            return SearchResult(self._meanings.spoken(found.matches, found.model.id), plan)
        return SearchResult(found.matches, plan)

    def _at_once(
        self, query: Query, encoded: tuple[str, Vector] | None, clock: _Clock
    ) -> _Found | None:
        """The answer in one statement, if nothing about the query needs more."""
        if self._quick is None or self._quick.known is None or query.filters:
            return None
        model, build = self._quick.known
        if encoded is not None and encoded[0] == model.fingerprint:
            vector = _rounded(encoded[1], model)
        elif query.vector is not None and query.model_id == model.id:
            vector = _rounded(query.vector, model)
        else:
            return None
        with clock.stage("search"):
            found = self._quick.find(model, build, vector, query.k, ())
        if found is None:
            return None
        answer = by_build(found.candidates, build, found.delta_rows)
        with clock.stage("details"):
            matches = _matches(answer, {row.product_id: row for row in found.rows})
        return _Found(matches, answer, model, vector, found.lag)

    def _in_turn(self, query: Query, encoded: tuple[str, Vector] | None, clock: _Clock) -> _Found:
        """The answer of whatever path can give it, all in one snapshot."""
        with snapshot(self._engine) as connection:
            with clock.stage("search"):
                model, lag = self._model(connection, query, encoded)
                ask = self._ask(connection, model, query, encoded)
                answer = find(ask, self._files, self._settings)
            with clock.stage("details"):
                hits = answer.candidates.hits
                pairs = [(hit.product_id, hit.picture_id) for hit in hits]
                matches = _matches(answer, products.details(connection, pairs))
        if self._quick is not None and answer.build is not None:
            self._quick.known = (model, answer.build)
        return _Found(matches, answer, model, ask.vector, lag)

    def _check(self, query: Query) -> None:
        given = [query.picture, query.sku, query.words, query.vector]
        if sum(part is not None for part in given) != 1:
            raise BadInput("A search takes exactly one of: a picture, a sku, words, a vector.")
        if not 1 <= query.k <= self._settings.max_k:
            raise BadInput(
                f"k is {query.k}; ask for 1 to {self._settings.max_k} products at a time."
            )
        check_text("sku", query.sku or "")
        check_text("text", query.words or "")

    def _encode(self, query: Query, clock: _Clock) -> tuple[str, Vector] | None:
        """The query's vector and the fingerprint of its encoder; None where none is needed."""
        if query.picture is not None:
            with clock.stage("load"):
                encoder = self._encoder()
            with clock.stage("decode"):
                decoder = self._decoders[query.stranger]
                picture = decoder(query.picture, at_least=encoder.input_side)
            with clock.stage("encode"):
                return encoder.fingerprint, encoder.encode_pictures([picture])[0]
        if query.words is not None:
            return self._encode_words(query.words, clock)
        return None

    def _encode_words(self, words: str, clock: _Clock) -> tuple[str, Vector]:
        if not words.strip():
            raise BadInput("There are no words to search for.")
        with clock.stage("load"):
            encoder = self._encoder()
        if not encoder.reads_words:
            raise NoWords(
                f"The model {encoder.name} reads pictures only and cannot search by words. "
                "Search with a picture or a sku, or use a CLIP model."
            )
        with clock.stage("encode"):
            return encoder.fingerprint, encoder.encode_words([words])[0]

    def _model(
        self, connection: Connection, query: Query, encoded: tuple[str, Vector] | None
    ) -> tuple[Model, float | None]:
        """The active model, once it is certain that the query's vector is one of its own, and
        how many seconds a replica is behind."""
        if not self._schema_checked:
            check_schema(connection)
            self._schema_checked = True
        model, lag = models.active_and_lag(connection)
        if model is None:
            raise NoModel()
        if encoded is not None and encoded[0] != model.fingerprint:
            raise ModelMismatch(
                "The model of this database was changed while this process had the previous one "
                f"loaded; it is now {model.name}. Start the process again."
            )
        if query.vector is not None and query.model_id != model.id:
            raise ModelMismatch(
                f"The vector belongs to model {query.model_id}; the active model is {model.id} "
                f"({model.name}). Encode the query again under the active model."
            )
        return model, lag

    def _ask(
        self,
        connection: Connection,
        model: Model,
        query: Query,
        encoded: tuple[str, Vector] | None,
    ) -> Ask:
        excluded: tuple[int, ...] = ()
        if query.sku is not None:
            product_id = _product_id(connection, query.sku)
            vector, excluded = _vector_of(connection, model, query.sku, product_id), (product_id,)
        elif encoded is not None:
            vector = encoded[1]
        else:
            assert query.vector is not None
            vector = query.vector
        return Ask(connection, model, _rounded(vector, model), query.k, query.filters, excluded)


@dataclass(frozen=True, slots=True)
class _Found:
    """An answer with the details of its products; `lag` is how many seconds a replica is behind."""

    matches: tuple[Match, ...]
    answer: Answer
    model: Model
    vector: Vector
    lag: float | None


class _Clock:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._began = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.ms[name] = round((time.perf_counter() - began) * 1000, 3)

    def total(self) -> dict[str, float]:
        return self.ms | {"total": round((time.perf_counter() - self._began) * 1000, 3)}


def _rounded(vector: Vector, model: Model) -> Vector:
    """The vector as every path uses it: rounded once to float16, the precision of the table."""
    wide = vector.astype(np.float64)
    length = math.sqrt(wide @ wide) if wide.shape == (model.dim,) else math.nan
    if not math.isfinite(length):
        raise BadInput(f"The query's vector must hold {model.dim} finite numbers.")
    if length == 0:
        raise BadInput("The query's vector is zero and points nowhere.")
    return (vector / length).astype(np.float16).astype(np.float32)


def _product_id(connection: Connection, sku: str) -> int:
    found = products.ids(connection, [sku]).get(sku)
    if found is None:
        near = products.similar_skus(connection, sku)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise UnknownProduct(f"No product of the catalogue has the sku {sku!r}.{hint}")
    return found


def _vector_of(connection: Connection, model: Model, sku: str, product_id: int) -> Vector:
    """The mean direction of a product's pictures."""
    vectors = pictures.vectors_of_product(connection, product_id, model)
    if len(vectors) == 0:
        raise BadInput(
            f"The product {sku!r} has no picture with an embedding under {model.name}; "
            "ingest it again with a picture."
        )
    mean: Vector = vectors.mean(axis=0)
    return mean


def _matches(answer: Answer, rows: Mapping[int, Any]) -> tuple[Match, ...]:
    """The hits with the details in the rows of their products (id)."""
    return tuple(
        Match(
            rank=rank,
            product=products.product_of(rows[hit.product_id]),
            product_id=hit.product_id,
            picture_id=hit.picture_id,
            similarity=hit.similarity,
            image=rows[hit.product_id].uri,
            thumbnail=bytes(rows[hit.product_id].thumbnail),
        )
        for rank, hit in enumerate(answer.candidates.hits, start=1)
    )


def _plan(found: _Found, query: Query, clock: _Clock) -> Plan:
    answer = found.answer
    return Plan(
        path=answer.path,
        reason=answer.reason,
        model=found.model.name,
        build=answer.build.id if answer.build else None,
        delta_rows=answer.delta_rows,
        candidates=answer.candidates.looked_at,
        vanished=answer.candidates.vanished,
        shortfall=_shortfall(len(found.matches), query),
        replica_lag_s=found.lag,
        ms=clock.total(),
    )


def _shortfall(found: int, query: Query) -> str | None:
    if found >= query.k:
        return None
    what = "products match the filter" if query.filters else "products have a picture"
    others = "other " if query.sku is not None else ""
    return f"only {found} {others}{what} with an embedding under the active model"
