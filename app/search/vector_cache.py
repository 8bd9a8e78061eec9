"""Memory: the vectors of the pictures that one person asked with, for as long as they stay.

A search that differs only in its filter, its words or its page need not encode a picture again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from app.types import Region, Vector

MOST = 64
"""Vectors that are remembered: of a few searches with all the pictures that one may hold."""


@dataclass(frozen=True, slots=True)
class QueryPicture:
    """A picture (file bytes), or the region of it that counts."""

    data: bytes
    region: Region | None = None

    def key(self, fingerprint: str) -> bytes:
        """What tells this part under this encoder (its fingerprint) from all others; 32 bytes."""
        return sha256(f"{fingerprint} {self.region} ".encode() + self.data).digest()


class VectorCache:
    """Unit vectors of parts, shape (dim,), float32; the least recently used leave first.

    Holds no pictures. For one caller at a time.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._vectors: OrderedDict[bytes, Vector] = OrderedDict()

    def known(self, parts: Iterable[QueryPicture], fingerprint: str) -> dict[QueryPicture, Vector]:
        """The vectors that are still remembered, of these parts, under this encoder."""
        keys = {part: part.key(fingerprint) for part in parts}
        found = {part: key for part, key in keys.items() if key in self._vectors}
        for key in found.values():
            self._vectors.move_to_end(key)
        return {part: self._vectors[key] for part, key in found.items()}

    def learn(self, vectors: Mapping[QueryPicture, Vector], fingerprint: str) -> None:
        """Remember the vectors of parts under this encoder; the oldest make room."""
        for part, vector in vectors.items():
            self._vectors[part.key(fingerprint)] = vector
        while len(self._vectors) > self._most:
            self._vectors.popitem(last=False)
