"""StoredPhotos: photos that are sent once and searched with several times, by any process.

Of a photo only its vector, the vectors of the objects found in it and a preview are kept, for a
limited time.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import Engine

from app.config import Settings
from app.db.queries import query_photos
from app.db.queries.query_photos import QueryPhotoRow
from app.db.text import is_storable
from app.encoders.base import EncoderProvider
from app.errors import Busy, ModelMismatch, UnknownPhoto
from app.images.thumbnails import thumbnail
from app.search.decoded_pictures import Decoder
from app.search.object_queries import object_at
from app.search.service import SearchService
from app.search.vector_cache import PhotoObject, PhotoObjects, QueryPicture, VectorCache
from app.types import Query, Region, RegionMatches, SearchResult, Vector

PREVIEW_SIDE = 640
"""Longer side of a preview in pixels: regions of a stored photo are cut from it."""

PREVIEW_BYTES = 80_000

ATTEMPTS = 3
"""How often a photo is encoded when the active model changes meanwhile."""


@dataclass(frozen=True, slots=True)
class PhotoReceipt:
    """A stored photo: its id, when it expires, the objects found in it, the surest first, and its
    preview (JPEG)."""

    id: str
    expires: datetime
    regions: tuple[RegionMatches, ...]
    result: SearchResult
    preview: bytes


class StoredPhotos:
    """Stores photos and gives them back as parts of queries. Thread-safe.

    `decoder` reads untrusted pictures.
    """

    def __init__(
        self,
        engine: Engine,
        search: SearchService,
        encoders: EncoderProvider,
        decoder: Decoder,
        settings: Settings,
    ) -> None:
        self._engine = engine
        self._search = search
        self._encoders = encoders
        self._decoder = decoder
        self._settings = settings

    def add(self, photo: bytes, minutes: float | None = None) -> PhotoReceipt:
        """Encode a photo (file bytes) under the active model, find the objects in it, store both
        for so many minutes; None takes those of the settings. With minutes it is shared, and
        shared photos take at most half of the places: they stay long, and anybody may share.

        Raises BadImage, Busy if too many photos are stored, and what `SearchService.search` raises.
        """
        self._make_room(shared=minutes is not None)
        picture, cache = QueryPicture(photo), VectorCache()
        for _ in range(ATTEMPTS):
            result = self._search.search(Query(picture=photo, k=1, untrusted=True), cache)
            fingerprint = self._encoders.active().fingerprint
            vector = cache.get([picture], fingerprint).get(picture)
            if vector is not None:
                break
        else:
            raise ModelMismatch("The active model changes all the time; try again later.")
        found = cache.get_objects(picture, fingerprint)
        preview = thumbnail(
            self._decoder(photo, at_least=PREVIEW_SIDE), side=PREVIEW_SIDE, max_bytes=PREVIEW_BYTES
        )
        row = QueryPhotoRow(
            secrets.token_urlsafe(24), fingerprint, _as_bytes(vector),
            None if found is None else _as_json(found), preview,
        )  # fmt: skip
        with self._engine.begin() as connection:
            expires = query_photos.insert(connection, row, minutes or self._settings.photo_minutes)
        return PhotoReceipt(row.id, expires, result.regions, result, preview)

    def load(
        self,
        id_: str,
        cache: VectorCache,
        region: Region | None = None,
        *,
        by_object: bool = True,
    ) -> bytes:
        """A stored photo as a picture of a query: its vectors are in `cache`, where the search
        finds them. A `region` is cut from the preview, unless the query may be `by_object` and it
        is the box of an object, whose vectors are stored.

        Raises UnknownPhoto if it is not stored (any more), or was stored under another model than
        the active one.
        """
        row = self._row(id_)
        if row.fingerprint != self._encoders.active().fingerprint:
            raise UnknownPhoto("The model has changed since this photo was sent; send it again.")
        found = None if row.objects is None else _from_json(row.objects)
        chosen = None if found is None or region is None else object_at(found, region)
        if region is not None and not (chosen and by_object):
            return row.preview
        # Bytes that no decoder takes for a picture: were its vector not found, the search would
        # be refused, and not go on with the preview.
        data = b"stored photo " + id_.encode()
        picture = QueryPicture(data)
        cache.put({picture: _from_bytes(row.vector)}, row.fingerprint)
        if found is not None:
            cache.put_objects(picture, row.fingerprint, found)
        return data

    def preview(self, id_: str) -> bytes:
        """The preview (JPEG) of a stored photo. Raises UnknownPhoto."""
        return self._row(id_).preview

    def expires(self, id_: str) -> datetime:
        """When a stored photo expires. Raises UnknownPhoto."""
        expires = self._row(id_).expires
        assert expires is not None
        return expires

    def remove(self, id_: str) -> None:
        """Delete a stored photo before it expires; nothing if it has."""
        if is_storable(id_):
            with self._engine.begin() as connection:
                query_photos.delete(connection, id_)

    def _row(self, id_: str) -> QueryPhotoRow:
        """A photo that has not expired. Raises UnknownPhoto, also for an id that is no text."""
        if is_storable(id_):
            with self._engine.connect() as connection:
                row = query_photos.find(connection, id_)
            if row is not None:
                return row
        raise UnknownPhoto()

    def _make_room(self, shared: bool) -> None:
        """Delete the photos that have expired. Raises Busy if there are too many others."""
        places = self._settings.max_photos
        with self._engine.begin() as connection:
            query_photos.delete_expired(connection)
            stored = query_photos.count(connection)
            long = query_photos.count(connection, self._settings.photo_minutes) if shared else 0
        if stored >= places:
            raise Busy(
                f"{stored:,} photos are stored, as many as LOOKALIKE_MAX_PHOTOS allows; try again "
                "when some have expired, or send the photo with each search."
            )
        if shared and long >= places / 2:
            raise Busy(
                f"{long:,} photos are shared, half of what LOOKALIKE_MAX_PHOTOS allows; try again "
                "when some have expired."
            )


def _as_bytes(vector: Vector) -> bytes:
    return vector.astype("<f4").tobytes()


def _from_bytes(data: bytes) -> Vector:
    return np.frombuffer(data, dtype="<f4").astype(np.float32)


def _as_json(found: PhotoObjects) -> dict[str, Any]:
    return {
        "whole": found.whole,
        "texture": found.texture,
        "leads": found.leads,
        "alike": found.alike,
        "border": found.border,
        "fifth": found.fifth,
        "objects": [
            {
                "box": list(each.box),
                "score": each.score,
                "merged": each.merged,
                "vectors": [
                    base64.b64encode(_as_bytes(vector)).decode() for vector in each.vectors
                ],
            }
            for each in found.objects
        ],
    }


def _from_json(found: Mapping[str, Any]) -> PhotoObjects:
    objects = tuple(
        PhotoObject(
            tuple(each["box"]),
            tuple(_from_bytes(base64.b64decode(vector)) for vector in each["vectors"]),
            each["score"],
            each["merged"],
        )
        for each in found["objects"]
    )
    return PhotoObjects(
        found["whole"], objects, found["texture"], found["leads"],
        alike=found.get("alike"), border=found.get("border"), fifth=found.get("fifth"),
    )  # fmt: skip
