"""QueryEncoder: turns what a query holds (pictures, words, what it is not) into vectors."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from app.encoders import Encoder
from app.errors import BadInput, NoWords
from app.filters import check_text
from app.values import Query, Region, Vector

SMALLEST = 0.02
"""Least share of a side that a region of a picture may have."""

LONGEST = 1000
"""Characters of words; a text tower reads about three hundred of them."""


class Decoder(Protocol):
    """Bytes to an RGB picture whose sides stay at least `at_least` pixels; raises BadImage."""

    def __call__(self, data: bytes, *, at_least: int | None = None) -> Image.Image: ...


class Clock(Protocol):
    """Times the stages of a search."""

    def stage(self, name: str) -> AbstractContextManager[None]: ...


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
    """Encodes queries with the encoder of the active model, loaded when first needed.

    `decoder` reads pictures the operator vouches for and `strange_decoder` those of anybody.
    """

    def __init__(
        self, encoder: Callable[[], Encoder], decoder: Decoder, strange_decoder: Decoder
    ) -> None:
        self._encoder = encoder
        self._decoders = {False: decoder, True: strange_decoder}

    def encode(self, query: Query, clock: Clock) -> Encoded:
        """The vectors of a query's parts.

        Raises BadImage, BadInput, and NoWords where words are to go through a model without a
        text tower.
        """
        if not (_pictures(query) or query.words or query.without_pictures or query.without_words):
            return Encoded()
        if query.words and query.words_by == "catalogue" and not _others(query):
            return Encoded()
        with clock.stage("load"):
            encoder = self._encoder()
        if query.words_by == "model" or query.without_words:
            _need_words(encoder)
        with clock.stage("decode"):
            shown = self._decode(query, encoder)
        with clock.stage("encode"):
            return _encoded(query, encoder, shown)

    def _decode(self, query: Query, encoder: Encoder) -> list[Image.Image]:
        """All pictures of a query: those it shows, then those it should not be like."""
        decode = self._decoders[query.stranger]
        found = []
        for place, data in enumerate((*_pictures(query), *query.without_pictures)):
            region = query.region if place == 0 and query.picture is not None else None
            found.append(_part(data, region, decode, encoder.input_side))
        return found


def check(query: Query) -> None:
    """Raise BadInput for a query that asks nothing, or things that do not go together."""
    if query.vector is not None and (_pictures(query) or query.sku or query.words):
        raise BadInput("A vector is searched alone; give pictures, a sku and words without it.")
    if query.sku is not None and _pictures(query):
        raise BadInput("A search takes pictures or a sku, not both.")
    given = (*_pictures(query), query.sku, query.words, query.vector)
    if all(part is None for part in given):
        raise BadInput("A search takes at least one of: a picture, a sku, words, a vector.")
    for words in (query.words, query.without_words):
        if words is not None and len(words) > LONGEST:
            raise BadInput(f"The text has {len(words)} characters; use at most {LONGEST}.")
    if query.words is not None and not query.words.strip():
        raise BadInput("There are no words to search for.")
    for name, weight in (("words", query.words_weight), ("without", query.without_weight)):
        if not 0 <= weight <= 1:
            raise BadInput(f"The weight of {name} is {weight}; it lies between 0 and 1.")
    for name, distance in (("query", query.near_query), ("match", query.near_match)):
        if distance is not None and not 0 <= distance <= 2:
            raise BadInput(f"The distance to the {name} is {distance}; it lies between 0 and 2.")
    for words in (query.sku, query.words, query.without_words, *query.shown):
        check_text("text", words or "")
    if query.region is not None:
        _check_region(query)


def _check_region(query: Query) -> None:
    assert query.region is not None
    left, top, right, bottom = query.region
    inside = 0 <= left < right <= 1 and 0 <= top < bottom <= 1
    if query.picture is None or not inside or min(right - left, bottom - top) < SMALLEST:
        raise BadInput(
            f"The region {query.region} is no part of a picture: give left, top, right and bottom "
            f"as shares between 0 and 1, at least {SMALLEST} apart, with a picture."
        )


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


def _part(data: bytes, region: Region | None, decode: Decoder, side: int | None) -> Image.Image:
    """A picture or the region of it, decoded no smaller than the encoder needs."""
    if region is None:
        return decode(data, at_least=side)
    left, top, right, bottom = region
    narrowest = min(right - left, bottom - top)
    picture = decode(data, at_least=None if side is None else int(side / narrowest) + 1)
    width, height = picture.size
    edges = (int(left * width), int(top * height), round(right * width), round(bottom * height))
    return picture.crop((*edges[:2], max(edges[2], edges[0] + 1), max(edges[3], edges[1] + 1)))


def _encoded(query: Query, encoder: Encoder, shown: list[Image.Image]) -> Encoded:
    vectors = tuple(encoder.encode_pictures(shown)) if shown else ()
    count = len(_pictures(query))
    without = vectors[count:]
    if query.without_words:
        without += (encoder.encode_words([query.without_words])[0],)
    words = None
    if query.words and encoder.reads_words and query.words_by != "catalogue":
        words = encoder.encode_words([query.words])[0]
    return Encoded(encoder.fingerprint, vectors[:count], words, without)


def _unit(vector: Vector) -> Vector:
    # In double precision, where the order of a sum makes no difference to what is left of it: SQL
    # (analytics._rounded) then comes to the same float16 values.
    wide = vector.astype(np.float64)
    length = float(np.linalg.norm(wide))
    if length < 1e-6:
        raise BadInput("What is asked for and what it should not be cancel each other out.")
    found: Vector = (wide / length).astype(np.float32)
    return found
