"""QueryEncoder: turns what a query holds (pictures, words, what it is not) into vectors."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image
from sqlalchemy import Connection

from app.db.queries import embeddings
from app.encoders.base import Encoder, EncoderProvider
from app.encoders.batching import BatcherPool, EncoderQueues
from app.encoders.preprocessing import PreparedPicture
from app.errors import BadInput, NoWords
from app.search.explain import StageTimer
from app.search.vector_cache import QueryPicture, VectorCache
from app.types import Model, Query, Vector
from app.vectors import length, round_to_float16, unit_float64


class Decoder(Protocol):
    """Bytes to an RGB picture whose sides stay at least `at_least` pixels; raises BadImage."""

    def __call__(self, data: bytes, *, at_least: int | None = None) -> Image.Image: ...


@dataclass(frozen=True, slots=True)
class Encoded:
    """Unit vectors of a query's parts, shape (dim,), float32, and the encoder they are of.

    `fingerprint` is None where no encoder was needed; `words` is None where the model does not
    read words, or was not asked to.
    """

    fingerprint: str | None = None
    pictures: tuple[Vector, ...] = ()
    words: Vector | None = None
    without: tuple[Vector, ...] = ()

    @property
    def asks(self) -> bool:
        """Whether the encoder made a direction to search in."""
        return bool(self.pictures) or self.words is not None

    def towards(self, query: Query, of_product: Vector | None = None) -> Vector | None:
        """The direction that the parts of a query make together; None if nothing in it has one.

        Pictures count alike; words count by their weight beside them. What it should not be like
        is taken away from it by its weight (the arithmetic of word2vec, Mikolov et al. 2013).
        """
        seen = self.pictures if of_product is None else (*self.pictures, of_product)
        found = None if not seen else _unit(np.mean(np.stack(seen), axis=0))
        if self.words is not None:
            weight = query.words_weight
            mixed = self.words if found is None else (1 - weight) * found + weight * self.words
            found = _unit(mixed)
        if found is not None and self.without:
            away = _unit(np.mean(np.stack(self.without), axis=0))
            found = _unit(found - np.float32(query.without_weight) * away)
        return found


class QueryEncoder:
    """Encodes queries with the encoder of the active model, loaded when first needed, or of the
    model that a query names. Safe to use from several threads, which encode together.

    `decoder` reads pictures the operator vouches for and `strange_decoder` those of anybody.
    """

    def __init__(
        self,
        encoders: EncoderProvider,
        decoder: Decoder,
        strange_decoder: Decoder,
        queues: BatcherPool | None = None,
    ) -> None:
        self._encoders = encoders
        self._queues = queues or BatcherPool()
        self._decoders = {False: decoder, True: strange_decoder}

    def encode(self, query: Query, clock: StageTimer, memory: VectorCache | None = None) -> Encoded:
        """The vectors of a query's parts; pictures in `memory` are not encoded again.

        Raises BadImage, BadInput, and NoWords where words are to go through a model without a
        text tower.
        """
        if not (_pictures(query) or query.words or query.without_pictures or query.without_words):
            return Encoded()
        if query.words and query.words_by == "catalogue" and not _others(query):
            return Encoded()
        with clock.stage("load"):
            if query.model_id is None:
                encoder = self._encoders.active()
                self._encoders.preload()
            else:
                encoder = self._encoders.for_model(query.model_id)
        if query.words_by == "model" or query.without_words:
            _need_words(encoder)
        memory, made = memory or VectorCache(), encoder.fingerprint
        known = memory.known(_parts(query), made)
        with clock.stage("decode"):
            opened = self._opened(query, encoder, known)
        with clock.stage("encode"):
            queue = self._queues.get(encoder)
            vectors = queue.pictures.encode(list(opened.values())) if opened else ()
            new = dict(zip(opened, vectors, strict=True))
            memory.learn(new, made)
            return _encoded(query, encoder, queue, known | new)

    def renew(self) -> None:
        """Learn which model is the active one now."""
        self._encoders.refresh_active()

    def _opened(
        self, query: Query, encoder: Encoder, known: Container[QueryPicture]
    ) -> dict[QueryPicture, PreparedPicture]:
        """The pictures of a query whose vectors are not known, as the network reads them."""
        decode, side = self._decoders[query.untrusted], encoder.input_side
        parts = [part for part in _parts(query) if part not in known]
        return {part: encoder.prepare(_cropped(part, decode, side)) for part in parts}


def _pictures(query: Query) -> tuple[bytes, ...]:
    first = () if query.picture is None else (query.picture,)
    return (*first, *query.more_pictures)


def _others(query: Query) -> bool:
    """Whether anything but the words needs an encoder."""
    return bool(_pictures(query) or query.without_pictures or query.without_words)


def _need_words(encoder: Encoder) -> None:
    if not encoder.reads_words:
        raise NoWords(
            f"The model {encoder.name} reads pictures only and cannot search by words. Let the "
            "words of the catalogue be searched, search with a picture or a sku, or use a CLIP "
            "model."
        )


def _parts(query: Query) -> list[QueryPicture]:
    """All pictures of a query: those it shows, then those it should not be like."""
    first = [] if query.picture is None else [QueryPicture(query.picture, query.region)]
    return first + [QueryPicture(data) for data in (*query.more_pictures, *query.without_pictures)]


def _cropped(part: QueryPicture, decode: Decoder, side: int | None) -> Image.Image:
    """A picture or the region of it, decoded no smaller than the encoder needs."""
    if part.region is None:
        return decode(part.data, at_least=side)
    left, top, right, bottom = part.region
    narrowest = min(right - left, bottom - top)
    picture = decode(part.data, at_least=None if side is None else int(side / narrowest) + 1)
    width, height = picture.size
    edges = (int(left * width), int(top * height), round(right * width), round(bottom * height))
    return picture.crop((*edges[:2], max(edges[2], edges[0] + 1), max(edges[3], edges[1] + 1)))


def _encoded(
    query: Query, encoder: Encoder, queue: EncoderQueues, vectors: Mapping[QueryPicture, Vector]
) -> Encoded:
    found = tuple(vectors[part] for part in _parts(query))
    count = len(_pictures(query))
    without = found[count:]
    if query.without_words:
        without += (queue.words.encode([query.without_words])[0],)
    words = None
    if query.words and encoder.reads_words and query.words_by != "catalogue":
        words = queue.words.encode([query.words])[0]
    return Encoded(encoder.fingerprint, found[:count], words, without)


def _unit(vector: Vector) -> Vector:
    # In float64, so that SQL (analytics._rounded) computes the same float16 values.
    if length(vector) < 1e-6:
        raise BadInput("What is asked for and what it should not be cancel each other out.")
    return unit_float64(vector).astype(np.float32)


def _by_words(query: Query, encoded: Encoded) -> tuple[str, float] | None:
    """The words that are looked up in the catalogue, and their weight beside the vector."""
    if query.words is None or query.words_by == "model":
        return None
    alone = query.picture is None and not query.more_pictures and query.sku is None
    if encoded.words is None:
        return query.words, 1.0 if alone else query.words_weight
    return query.words, 0.5 if alone else query.words_weight / 2


def _readers(encoded: Encoded, catalogue: bool) -> str | None:
    """What read the words of a query."""
    readers = [("model", encoded.words is not None), ("catalogue", catalogue)]
    return " and ".join(name for name, read in readers if read) or None


def _rounded(vector: Vector | None, model: Model) -> Vector:
    """The vector as every path uses it: rounded once to float16, the precision of the table."""
    assert vector is not None
    norm = length(vector) if vector.shape == (model.dim,) else math.nan
    if not math.isfinite(norm):
        raise BadInput(f"The query's vector must hold {model.dim} finite numbers.")
    if norm == 0:
        raise BadInput("The query's vector is zero and points nowhere.")
    return round_to_float16(vector / norm)


def _vector_of(connection: Connection, model: Model, sku: str, product_id: int) -> Vector:
    """The mean direction of a product's pictures."""
    vectors = embeddings.vectors_of_product(connection, product_id, model)
    if len(vectors) == 0:
        raise BadInput(
            f"The product {sku!r} has no picture with an embedding under {model.name}; "
            "ingest it again with a picture."
        )
    mean: Vector = vectors.mean(axis=0)
    return mean
