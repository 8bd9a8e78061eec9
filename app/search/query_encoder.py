"""QueryEncoder: encodes the pictures and words of a query and combines them into one vector."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from PIL import Image
from sqlalchemy import Connection

from app.db.queries import embeddings
from app.encoders import word_space
from app.encoders.base import EMBEDDED, Encoder, EncoderProvider, WordReader, split_variant
from app.encoders.batching import BatcherPool, EncoderQueues
from app.encoders.feature_map import MAP_SIDE
from app.encoders.preprocessing import PreparedPicture
from app.encoders.projected_encoder import base_of
from app.errors import BadInput, NoWords
from app.images.border_texture import border_texture
from app.search import german_spelling
from app.search.decoded_pictures import DecodedPictures, Decoder
from app.search.explain import StageTimer
from app.search.vector_cache import QueryPicture, VectorCache
from app.search.windows import TILES, Windows, likeness, window_grid
from app.types import Model, Query, Region, Vector, Vectors, WordsReading
from app.vectors import length, round_to_float16, unit_float64


@dataclass(frozen=True, slots=True)
class EncodedQuery:
    """Unit vectors of a query's parts, shape (dim,), float32, under one encoder.

    `fingerprint` is the encoder's, None if none was needed. `words` is None if the model does not
    read words, has no idea of these, or the query has them read by the catalogue alone. With
    `catalogue_first`, words that the catalogue has are not left to the model. `without` are the
    pictures and words that the result should not be like. `maps_regions` is the encoder's.
    `colours` (n, 18) are those that the words name, negative for unwanted ones
    (`colour_words.rows`); pictures are ranked by them too. None: no colour is named.
    `words` is then of the others where there are any, and `whole_words` of all: for pictures whose
    colours are not known. `further` are the other vectors of an object, where the picture is
    searched by one: a product's distance is that to the nearest of them and `pictures`.
    """

    fingerprint: str | None = None
    pictures: tuple[Vector, ...] = ()
    words: Vector | None = None
    without: tuple[Vector, ...] = ()
    maps_regions: bool = False
    catalogue_first: bool = False
    colours: Vectors | None = None
    whole_words: Vector | None = None
    further: tuple[Vector, ...] = ()

    @property
    def has_direction(self) -> bool:
        """Whether the encoder contributes to the query vector."""
        return bool(self.pictures) or self.words is not None

    def direction(self, query: Query, product_vector: Vector | None = None) -> Vector | None:
        """The query vector at unit length, shape (dim,); None if no part of the query has a vector.

        The mean of the pictures (and of `product_vector`), or else the words, minus the mean of
        `without` times `query.without_weight` (vector arithmetic as of word2vec, Mikolov et al.
        2013). Words beside pictures are not in it: they re-rank what is near the pictures.
        """
        pictures = self.pictures
        if product_vector is not None:
            pictures = (*pictures, product_vector)
        vector = None if not pictures else unit_direction(np.mean(np.stack(pictures), axis=0))
        if vector is None and self.words is not None:
            vector = unit_direction(self.words)
        if vector is not None and self.without:
            without = unit_direction(np.mean(np.stack(self.without), axis=0))
            vector = unit_direction(vector - np.float32(query.without_weight) * without)
        return vector


class QueryEncoder:
    """Encodes queries with the active model, or with the model that a query names.

    Encoders are loaded when first needed. Thread-safe: concurrent queries are encoded in batches.
    `decoder` reads trusted pictures, `untrusted_decoder` all others.
    """

    def __init__(
        self,
        encoders: EncoderProvider,
        decoder: Decoder,
        untrusted_decoder: Decoder,
        queues: BatcherPool | None = None,
    ) -> None:
        self._encoders = encoders
        self._queues = queues or BatcherPool()
        self._decoders = {False: decoder, True: untrusted_decoder}

    def encode(
        self, query: Query, timer: StageTimer, cache: VectorCache | None = None
    ) -> EncodedQuery:
        """The vectors of a query's parts; pictures in `cache` are not encoded again.

        Raises BadImage, BadInput, and NoWords if the model has no text encoder but has to read
        words.
        """
        if not _needs_encoder(query) and not self._encodes_words(query):
            return EncodedQuery()
        with timer.stage("load"):
            reader = None if _query_pictures(query) else self._encoders.word_reader(query.model_id)
        if reader is not None:
            with timer.stage("encode"):
                return _read(query, reader)
        with timer.stage("load"):
            encoder = self._encoder(query)
            if query.model_id is None:
                self._encoders.preload()
        if query.words_by == "model" or query.without_words:
            _require_words(encoder)
        cache = cache or VectorCache()
        cached = cache.get(_query_pictures(query), encoder.fingerprint)
        if cache.pictures is not None:
            timer.add_earlier("decode", cache.pictures.seconds)
        with timer.stage("decode"):
            prepared = self._prepared(query, encoder, cached, self._decoder(query, cache))
        with timer.stage("encode"):
            queues = self._queues.get(encoder)
            vectors = queues.pictures.encode(list(prepared.values())) if prepared else ()
            new = dict(zip(prepared, vectors, strict=True))
            cache.put(new, encoder.fingerprint)
            return _encoded(query, encoder, queues, cached | new)

    @contextmanager
    def decoding(self, query: Query, cache: VectorCache) -> Iterator[DecodedPictures]:
        """Decodes the pictures of an untrusted query before it has a place, waiting for a decoder
        if need be; `cache` holds them during the block. Raises BadImage and Busy.

        The block is to be run by `repeated`, which decodes what else it turns out to need.
        """
        former, pictures = cache.pictures, DecodedPictures(self._decoders[query.untrusted])
        if query.untrusted and _query_pictures(query):
            encoder = self._encoder(query)
            cached = cache.get(_query_pictures(query), encoder.fingerprint)
            for picture in _query_pictures(query):
                if picture not in cached:
                    decode = partial(_cropped, picture, pictures, encoder.input_side)
                    pictures.repeated(decode)
            cache.pictures = pictures
        try:
            yield pictures
        finally:
            cache.pictures = former

    def map_windows(
        self, query: Query, fingerprint: str, cache: VectorCache | None = None
    ) -> Windows | None:
        """The windows of the query's picture, all from one feature map.

        None if the encoder has no feature map, or is not the one with this fingerprint.
        """
        encoder = self._encoder(query)
        if not encoder.maps_regions or encoder.fingerprint != fingerprint:
            return None
        known = {} if cache is None or cache.pictures is None else cache.pictures.windows
        if fingerprint not in known:
            assert query.picture is not None
            picture = self._decoder(query, cache)(query.picture, at_least=MAP_SIDE)
            regions = window_grid(picture.size)
            vectors = encoder.pool_windows(encoder.encode_map(picture), [*regions, *TILES])
            known[fingerprint] = Windows(
                regions, vectors[: len(regions)], border_texture(picture),
                likeness(vectors[len(regions) :]),
            )  # fmt: skip
        return known[fingerprint]

    def mapped_by(self, query: Query) -> str | None:
        """The fingerprint of the query's encoder; None if it has no feature map."""
        encoder = self._encoder(query)
        return encoder.fingerprint if encoder.maps_regions else None

    def encode_regions(
        self, query: Query, regions: Sequence[Region], cache: VectorCache | None = None
    ) -> Vectors:
        """Vectors of regions of the query's picture, each encoded as a picture: (n, dim)."""
        encoder = self._encoder(query)
        assert query.picture is not None
        sides = [_side_to_decode(encoder.input_side, region) for region in regions]
        needed = [side for side in sides if side is not None]
        picture = self._decoder(query, cache)(query.picture, at_least=max(needed, default=None))
        prepared = [encoder.prepare(crop(picture, region)) for region in regions]
        return self._queues.get(encoder).pictures.encode(prepared)

    def _encodes_words(self, query: Query) -> bool:
        """Whether the model has to read the words of a query. One that reads none is not loaded for
        words that the catalogue is searched for."""
        if not query.words or query.words_by == "catalogue":
            return False
        return query.words_by == "model" or self._encoders.may_read_words(query.model_id)

    def _encoder(self, query: Query) -> Encoder:
        if query.model_id is None:
            return self._encoders.active()
        return self._encoders.for_model(query.model_id)

    def _decoder(self, query: Query, cache: VectorCache | None) -> Decoder:
        pictures = None if cache is None else cache.pictures
        return pictures or self._decoders[query.untrusted]

    def refresh_model(self) -> None:
        """Look up the active model again."""
        self._encoders.refresh_active()

    def _prepared(
        self, query: Query, encoder: Encoder, cached: Container[QueryPicture], decode: Decoder
    ) -> dict[QueryPicture, PreparedPicture]:
        """The pictures that are not cached, decoded and preprocessed for the encoder."""
        side = encoder.input_side
        pictures = [picture for picture in _query_pictures(query) if picture not in cached]
        return {picture: encoder.prepare(_cropped(picture, decode, side)) for picture in pictures}


def has_pictures(query: Query) -> bool:
    """Whether the query has pictures or a sku, so that words only re-rank."""
    return bool(_pictures(query)) or query.sku is not None


def _pictures(query: Query) -> tuple[bytes, ...]:
    first = () if query.picture is None else (query.picture,)
    return (*first, *query.more_pictures)


def _needs_encoder(query: Query) -> bool:
    """Whether any part except `words` needs an encoder."""
    return bool(_pictures(query) or query.without_pictures or query.without_words)


def _require_words(encoder: Encoder) -> None:
    if not encoder.reads_words:
        raise NoWords(
            f"The model {encoder.name} reads pictures only and cannot search by words. "
            "Search the words of the catalogue, search with a picture or a sku, or use the newest "
            "version of the embedded encoder or a CLIP model."
        )


def _query_pictures(query: Query) -> list[QueryPicture]:
    """All pictures of a query: those it searches by, then those it should not be like."""
    first = [] if query.picture is None else [QueryPicture(query.picture, query.region)]
    return first + [QueryPicture(data) for data in (*query.more_pictures, *query.without_pictures)]


def _cropped(picture: QueryPicture, decode: Decoder, side: int | None) -> Image.Image:
    """A picture or its region, decoded no smaller than the encoder's input (`side` pixels)."""
    if picture.region is None:
        return decode(picture.data, at_least=side)
    image = decode(picture.data, at_least=_side_to_decode(side, picture.region))
    return crop(image, picture.region)


def _side_to_decode(side: int | None, region: Region) -> int | None:
    """The side in pixels that a picture needs for a region of it to have `side` pixels."""
    left, top, right, bottom = region
    return None if side is None else int(side / min(right - left, bottom - top)) + 1


def crop(image: Image.Image, region: Region) -> Image.Image:
    """A region of a picture, at least one pixel wide and high."""
    (left, top, right, bottom), (width, height) = region, image.size
    edges = (int(left * width), int(top * height), round(right * width), round(bottom * height))
    return image.crop((*edges[:2], max(edges[2], edges[0] + 1), max(edges[3], edges[1] + 1)))


def _encoded(
    query: Query, encoder: Encoder, queues: EncoderQueues, vectors: Mapping[QueryPicture, Vector]
) -> EncodedQuery:
    pictures = tuple(vectors[picture] for picture in _query_pictures(query))
    count = len(_pictures(query))
    reader = WordReader(encoder.fingerprint, queues.words.encode)
    embedded = split_variant(base_of(encoder).name)[0] == EMBEDDED
    reads = encoder.reads_words or bool(query.without_words)
    read = EncodedQuery(encoder.fingerprint)
    if reads:
        read = _read(query, reader, names_colours=embedded)
    return replace(
        read,
        pictures=pictures[:count],
        without=pictures[count:] + read.without,
        maps_regions=encoder.maps_regions,
        catalogue_first=embedded,
    )


def _read(query: Query, reader: WordReader, *, names_colours: bool = True) -> EncodedQuery:
    """The words of a query. Raises NoWords if the model has no idea of what only it may read.

    `names_colours` is whether the model's words are those of the embedded encoder, whose colours
    are told by pixels.
    """
    words, without, whole = None, None, None
    colours: list[Vectors] = []
    if query.without_words:
        without = _known(reader, query.without_words, required=True)
        colours.append(-word_space.colours_asked(query.without_words)[0])
    if query.words and query.words_by != "catalogue":
        text = german_spelling.to_encode(query) if names_colours else query.words
        words = _known(reader, text, required=query.words_by == "model")
        named, others = word_space.colours_asked(text)
        colours.append(named)
        if words is not None and names_colours and len(named):
            # With the colours of the pixels, those of the vector would count twice.
            alone = _known(reader, others, required=False) if others else None
            words, whole = (words, None) if alone is None else (alone, words)
    unlike = () if without is None else (without,)
    rows = np.concatenate(colours) if colours and names_colours else None
    return EncodedQuery(
        reader.fingerprint, (), words, unlike, catalogue_first=True,
        colours=rows if rows is not None and len(rows) else None, whole_words=whole,
    )  # fmt: skip


def _known(reader: WordReader, words: str, *, required: bool) -> Vector | None:
    """The vector of words, None if the model has no idea of them and that is not `required`."""
    vector: Vector = reader.encode([words])[0]
    if vector.any():
        return vector
    if required:
        raise NoWords(
            f"The model has no idea of {words!r}. Use other words, or leave them to the catalogue."
        )
    return None


def unit_direction(vector: Vector) -> Vector:
    """A vector (dim,) at unit length, float32. Raises BadInput if its length is almost zero."""
    # In float64, so that SQL (analytics._rounded) computes the same float16 values.
    if length(vector) < 1e-6:
        raise BadInput("What is asked for and what it should not be cancel each other out.")
    return unit_float64(vector).astype(np.float32)


def catalogue_words(query: Query, encoded: EncodedQuery) -> tuple[str, float] | None:
    """The words to look up in the catalogue, and their weight (0 to 1) against the vector."""
    if query.words is None or query.words_by == "model":
        return None
    alone = not has_pictures(query)
    if encoded.words is None or (encoded.catalogue_first and not alone):
        return query.words, 1.0 if alone else query.words_weight
    return query.words, 0.5 if alone else query.words_weight / 2


def word_readers(encoded: EncodedQuery, *, catalogue: bool) -> str | None:
    """What read the words of a query, as in `Plan.words`; None without words."""
    readers = [("model", encoded.words is not None), ("catalogue", catalogue)]
    return " and ".join(name for name, read in readers if read) or None


def with_unknown(reading: WordsReading, words: str, model: Model) -> WordsReading:
    """How the catalogue read words, with those of the ignored ones that the text side of the model
    has no idea of either."""
    space = word_space.of_model(model) if reading.ignored else None
    if space is None:
        return reading
    unknown = {word.casefold() for word in space.read(words).unknown}
    told = tuple(word for word in reading.ignored if word.casefold() in unknown)
    return replace(reading, unknown=told)


def round_query(vector: Vector | None, model: Model) -> Vector:
    """The query vector that every path uses: unit length, rounded once to float16, the precision of
    the table. Raises BadInput for a vector of another shape, not finite, or zero."""
    assert vector is not None
    norm = length(vector) if vector.shape == (model.dim,) else math.nan
    if not math.isfinite(norm):
        raise BadInput(f"The query's vector must hold {model.dim} finite numbers.")
    if norm == 0:
        raise BadInput("The query's vector is zero and points nowhere.")
    return round_to_float16(vector / norm)


def product_vector(connection: Connection, model: Model, sku: str, product_id: int) -> Vector:
    """The mean of the embeddings of a product's pictures, shape (dim,), float32.

    Raises BadInput if none of its pictures has one.
    """
    vectors = embeddings.vectors_of_product(connection, product_id, model)
    if len(vectors) == 0:
        raise BadInput(
            f"The product {sku!r} has no picture with an embedding under {model.name}; "
            "ingest it again with a picture."
        )
    mean: Vector = vectors.mean(axis=0)
    return mean
