"""LRU cache, per session, of the vectors of query pictures and of the objects found in them.

A search that differs only in its filter, words or page does not encode its pictures again, and
searches the same objects.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from app.types import Region, Vector

if TYPE_CHECKING:
    from app.search.decoded_pictures import DecodedPictures  # importing it loads Pillow

MAX_VECTORS = 64
"""Enough for a few searches with as many pictures as one search may hold."""


@dataclass(frozen=True, slots=True)
class QueryPicture:
    """A picture of a query (file bytes), or a region of it."""

    data: bytes
    region: Region | None = None

    def key(self, fingerprint: str) -> bytes:
        """Cache key under the encoder with this fingerprint; 32 bytes."""
        return sha256(f"{fingerprint} {self.region} ".encode() + self.data).digest()


@dataclass(frozen=True, slots=True)
class PhotoObject:
    """An object found in a photo: its box, the vectors (dim,) to search by, and the score that
    its window was chosen by.

    The distance of a product to the object is that to the nearest of the vectors. It is `merged`
    if it counts in the list of the photo, not only in its own.
    """

    box: Region
    vectors: tuple[Vector, ...]
    score: float
    merged: bool = True


@dataclass(frozen=True, slots=True)
class PhotoObjects:
    """What was found in a photo: the best cosine similarity of the whole to a picture of the
    catalogue, the objects, best first, the `border_texture` of the photo, and whether the objects
    lead the whole (never under a model without a lead); how `alike` the photo's tiles are and its
    `border` to the whole (see `Windows`); and the whole's similarity to the `fifth` nearest
    product. No objects and none of these measures (None) where the whole photo leaves no doubt. Not
    `compared` where its windows could not be compared with the catalogue, as between many changes
    and the next build."""

    whole: float
    objects: tuple[PhotoObject, ...] = ()
    texture: float | None = None
    leads: bool = False
    compared: bool = True
    alike: float | None = None
    border: float | None = None
    fifth: float | None = None


class VectorCache:
    """Unit vectors of query pictures, shape (dim,), float32, and the objects found in pictures;
    evicts the least recently used.

    Holds no pictures, except those that a running search had decoded. Not thread-safe.
    """

    def __init__(self, max_vectors: int = MAX_VECTORS) -> None:
        self._max_vectors = max_vectors
        self._vectors: OrderedDict[bytes, Vector] = OrderedDict()
        self._objects: OrderedDict[bytes, PhotoObjects] = OrderedDict()
        self.pictures: DecodedPictures | None = None

    def get_objects(self, picture: QueryPicture, fingerprint: str) -> PhotoObjects | None:
        """The objects found in a picture under the encoder with this fingerprint; None if it was
        not searched for any."""
        key = picture.key(fingerprint)
        if key in self._objects:
            self._objects.move_to_end(key)
        return self._objects.get(key)

    def put_objects(self, picture: QueryPicture, fingerprint: str, found: PhotoObjects) -> None:
        """Store what was found in a picture; the least recently used leave."""
        self._objects[picture.key(fingerprint)] = found
        while len(self._objects) > self._max_vectors:
            self._objects.popitem(last=False)

    def get(self, pictures: Iterable[QueryPicture], fingerprint: str) -> dict[QueryPicture, Vector]:
        """The cached vectors of these pictures under the encoder with this fingerprint."""
        keys = {picture: picture.key(fingerprint) for picture in pictures}
        cached = {picture: key for picture, key in keys.items() if key in self._vectors}
        for key in cached.values():
            self._vectors.move_to_end(key)
        return {picture: self._vectors[key] for picture, key in cached.items()}

    def put(self, vectors: Mapping[QueryPicture, Vector], fingerprint: str) -> None:
        """Store vectors of the encoder with this fingerprint; the least recently used leave."""
        for picture, vector in vectors.items():
            self._vectors[picture.key(fingerprint)] = vector
        while len(self._vectors) > self._max_vectors:
            self._vectors.popitem(last=False)
