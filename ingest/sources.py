"""What a source is read as: product rows and rejects; and the limits of each row."""

from __future__ import annotations

from dataclasses import dataclass

from app.catalog.entries import EVERYTHING, GivenFields
from app.types import Product

MAX_FIELD_LENGTH = 10_000_000
MAX_IMAGES = 100


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A product of a source and its pictures, as the source names them.

    `given` are the fields that the source has; a stored product keeps the others.
    """

    line: int
    product: Product
    images: tuple[str, ...]
    given: GivenFields = EVERYTHING


@dataclass(frozen=True, slots=True)
class SourceReject:
    """A refused row, or if `image` is set, one refused picture of a row."""

    line: int
    sku: str | None
    reason: str
    image: str | None = None


def text_encoding(start: bytes, default: str) -> str:
    """The encoding that the byte order mark at the start of a file names, else the default."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    return "utf-8-sig" if default.lower().replace("_", "-") in ("utf-8", "utf8") else default
