"""Pictures of one query, decoded while the query holds no place and no connection.

Untrusted pictures are decoded by a few child processes, for which a query may have to wait as long
as others take. Meanwhile it must not keep other searches from running.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from PIL import Image

from app.search.windows import Windows

T = TypeVar("T")


class Decoder(Protocol):
    """Decodes bytes to an RGB picture, no side scaled below `at_least` pixels; raises BadImage."""

    def __call__(self, data: bytes, *, at_least: int | None = None) -> Image.Image: ...


class NotDecoded(Exception):
    """A picture is needed in a size in which it was not decoded yet."""

    def __init__(self, data: bytes, at_least: int | None) -> None:
        super().__init__(at_least)
        self.data = data
        self.at_least = at_least


class DecodedPictures:
    """A decoder that knows the pictures decoded before, and raises NotDecoded for others.

    `seconds` is how long decoding took. `windows` are those of the query's picture under the
    encoder with this fingerprint, so that a repeated search does not encode them again.
    """

    def __init__(self, decode: Decoder) -> None:
        self._decode = decode
        self._pictures: dict[tuple[bytes, int | None], Image.Image] = {}
        self.seconds = 0.0
        self.windows: dict[str, Windows] = {}

    def __call__(self, data: bytes, *, at_least: int | None = None) -> Image.Image:
        """A picture that was decoded with this `at_least`. Raises NotDecoded."""
        picture = self._pictures.get((data, at_least))
        if picture is None:
            raise NotDecoded(data, at_least)
        return picture

    def repeated(self, attempt: Callable[[], T]) -> T:
        """The result of `attempt`, repeated with each picture that it lacked. Raises BadImage."""
        while True:
            try:
                return attempt()
            except NotDecoded as missing:
                lacking = missing
            began = time.perf_counter()
            picture = self._decode(lacking.data, at_least=lacking.at_least)
            self._pictures[lacking.data, lacking.at_least] = picture
            self.seconds += time.perf_counter() - began
