"""Parses and validates the fields of a product in a source."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

from app.types import Product

COLUMNS = ("sku", "title", "brand", "category", "colour", "year", "price", "currency", "images")
MAX_INDEXED_LENGTH = 500
"""Characters; PostgreSQL cannot index values much longer than 2,600 bytes."""
MAX_SHOWN_LENGTH = 200


class BadField(ValueError):
    """A value that does not fit its column."""


def product(fields: Mapping[str, str], attributes: Mapping[str, str]) -> Product:
    """The product of a row; `fields` has values by the names in COLUMNS. Raises BadField."""
    sku = fields.get("sku", "")
    if not sku:
        raise BadField("no sku")
    for name in ("sku", "brand", "category", "colour"):
        if len(fields.get(name, "")) > MAX_INDEXED_LENGTH:
            raise BadField(f"the {name} is longer than {MAX_INDEXED_LENGTH} characters")
    return Product(
        sku=sku,
        title=fields.get("title", ""),
        brand=fields.get("brand") or None,
        category=fields.get("category") or None,
        colour=fields.get("colour") or None,
        year=_year(fields.get("year", "")),
        price=_price(fields.get("price", "")),
        currency=fields.get("currency") or None,
        attributes={name: value for name, value in attributes.items() if name and value},
    )


def readable_sku(sku: str) -> str | None:
    """The sku of a refused row; None if it is not a valid sku."""
    possible = sku and len(sku) <= MAX_INDEXED_LENGTH and "\0" not in sku and not undecoded(sku)
    return sku if possible else None


def undecoded(text: str) -> bool:
    """Whether the text contains lone surrogates, which PostgreSQL cannot store.

    Bytes that cannot be decoded are read as U+DC80 to U+DCFF; some encodings, such as utf-7, can
    encode other surrogates too.
    """
    return any("\ud800" <= character <= "\udfff" for character in text)


def short(text: str) -> str:
    """The text, shortened for an error message."""
    return text if len(text) <= MAX_SHOWN_LENGTH else f"{text[:MAX_SHOWN_LENGTH]}…"


def _year(value: str) -> int | None:
    if not value:
        return None
    try:
        year = int(_number(value))
    except ValueError:
        raise BadField(f"the year {short(value)!r} is not a whole number") from None
    if not 0 <= year <= 9999:
        raise BadField(f"the year {short(value)!r} is not between 0 and 9999")
    return year


def _price(value: str) -> Decimal | None:
    """An amount rounded to four decimals, as the column stores it."""
    if not value:
        return None
    try:
        price = Decimal(_number(value))
        if price.is_finite() and abs(price) < 10**10:
            price = price.quantize(Decimal("0.0001"))
    except (InvalidOperation, ValueError):
        raise BadField(f"the price {short(value)!r} is not a number such as 12.50") from None
    # Checked after rounding, which may carry into one digit more than the column has.
    if not price.is_finite() or not 0 <= price < 10**10:
        raise BadField(f"the price {short(value)!r} is not between 0 and 9,999,999,999")
    return price


def _number(value: str) -> str:
    """The value; raises ValueError for the underscores that Python allows in numbers."""
    if "_" in value:
        raise ValueError(value)
    return value
