"""Searches by one object of a photo: a region that is the box of an object is searched as the
object itself was, so that its matches are those that the photo's regions show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from app.search.explain import StageTimer
from app.search.query_encoder import EncodedQuery, QueryEncoder, round_query
from app.search.vector_cache import PhotoObject, PhotoObjects, QueryPicture, VectorCache
from app.search.windows import is_on_grid, same_box
from app.types import Model, Query, Region, Vector


class ObjectQueries:
    """Encodes queries; those by an object of their photo with the object's vectors. Thread-safe.

    `find` is called with a query by a whole photo, its encoding and the cache, in which it puts
    the objects. None: no photo has objects.
    """

    def __init__(
        self,
        encoder: QueryEncoder,
        find: Callable[[Query, EncodedQuery, VectorCache], object] | None,
    ) -> None:
        self._encoder = encoder
        self._find = find

    def to_decode(self, query: Query, cache: VectorCache) -> Query:
        """The query with the pictures that have to be encoded: the whole photo for an object that
        is known."""
        fingerprint = self._mapped_by(query)
        if fingerprint is None or _chosen(query, fingerprint, cache) is None:
            return query
        return replace(query, region=None)

    def encode(self, query: Query, timer: StageTimer, cache: VectorCache) -> EncodedQuery:
        """The vectors of a query's parts, as `QueryEncoder.encode`.

        The objects of a photo are looked for where they are not in the cache, if the region may
        be the frame of one.
        """
        with timer.stage("load"):
            fingerprint = self._mapped_by(query)
        if fingerprint is None or self._find is None:
            return self._encoder.encode(query, timer, cache)
        whole, encoded = replace(query, region=None), None
        assert query.region is not None
        if _known(query, fingerprint, cache) is None and is_on_grid(query.region):
            encoded = self._encoder.encode(whole, timer, cache)
            with timer.stage("objects"):
                self._find(whole, encoded, cache)
        chosen = _chosen(query, fingerprint, cache)
        if chosen is None:
            return self._encoder.encode(query, timer, cache)
        encoded = encoded or self._encoder.encode(whole, timer, cache)
        if encoded.fingerprint != fingerprint:  # the active model has changed meanwhile
            return self._encoder.encode(query, timer, cache)
        first, *further = chosen.vectors
        return replace(encoded, pictures=(first,), further=tuple(further))

    def _mapped_by(self, query: Query) -> str | None:
        """The fingerprint of the encoder that finds objects in the query's picture; None if the
        query is not by a region alone, or no objects are found."""
        single = query.picture is not None and not query.more_pictures and query.objects
        if self._find is None or query.region is None or not single:
            return None
        return self._encoder.mapped_by(query)


def object_at(found: PhotoObjects, region: Region) -> PhotoObject | None:
    """The object with this box, which may be given in whole percent, as the page gives it."""
    return next((each for each in found.objects if same_box(each.box, region)), None)


def object_directions(query: Query, encoded: EncodedQuery, model: Model) -> tuple[Vector, ...]:
    """The query vectors (dim,) of the object that the query is by; empty for any other query."""
    if not encoded.further:
        return ()
    return tuple(
        round_query(replace(encoded, pictures=(vector,)).direction(query), model)
        for vector in (*encoded.pictures, *encoded.further)
    )


def _known(query: Query, fingerprint: str, cache: VectorCache) -> PhotoObjects | None:
    assert query.picture is not None
    return cache.get_objects(QueryPicture(query.picture), fingerprint)


def _chosen(query: Query, fingerprint: str, cache: VectorCache) -> PhotoObject | None:
    known = _known(query, fingerprint, cache)
    return None if known is None or query.region is None else object_at(known, query.region)
