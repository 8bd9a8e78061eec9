"""Parses and validates the fields of a product in a source."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from app.catalog.entries import is_filled
from app.db.text import is_storable
from app.types import Product
from app.year_and_price import parse_price, parse_year

COLUMNS = ("sku", "title", "brand", "category", "colour", "year", "price", "currency", "images")
MAX_INDEXED_LENGTH = 500
"""Characters; PostgreSQL cannot index values much longer than 2,600 bytes."""
MAX_TITLE_LENGTH = 1000
"""Characters; longer texts are descriptions, and every search that finds one would read it."""

MAX_SHOWN_LENGTH = 200


class BadField(ValueError):
    """A value that does not fit its column."""


def product(fields: Mapping[str, str], attributes: Mapping[str, Any]) -> Product:
    """The product of a row; `fields` has values by the names in COLUMNS. Raises BadField.

    Attributes that are None or "" are left out.
    """
    sku = fields.get("sku", "")
    if not sku:
        raise BadField("no sku")
    for name in ("sku", "brand", "category", "colour"):
        if len(fields.get(name, "")) > MAX_INDEXED_LENGTH:
            raise BadField(f"the {name} is longer than {MAX_INDEXED_LENGTH} characters")
    if (length := len(fields.get("title", ""))) > MAX_TITLE_LENGTH:
        raise BadField(
            f"the title has {length:,} characters, at most {MAX_TITLE_LENGTH:,} are allowed; put "
            "the description into a column of its own"
        )
    return Product(
        sku=sku,
        title=fields.get("title", ""),
        brand=fields.get("brand") or None,
        category=fields.get("category") or None,
        colour=fields.get("colour") or None,
        year=_year(fields.get("year", "")),
        price=_price(fields.get("price", "")),
        currency=fields.get("currency") or None,
        attributes={name: value for name, value in attributes.items() if name and is_filled(value)},
    )


def check_storable(what: str, text: str) -> str:
    """The text. Raises BadField, which calls it `what`, if PostgreSQL cannot store it."""
    if not is_storable(text):
        raise BadField(f"{what} holds a NUL character or is not text")
    return text


def readable_sku(sku: str) -> str | None:
    """The sku of a refused row; None if it is not a valid sku."""
    possible = sku and len(sku) <= MAX_INDEXED_LENGTH and is_storable(sku)
    return sku if possible else None


def short(text: str) -> str:
    """The text, shortened for an error message."""
    return text if len(text) <= MAX_SHOWN_LENGTH else f"{text[:MAX_SHOWN_LENGTH]}…"


def _year(value: str) -> int | None:
    try:
        return parse_year(value) if value else None
    except ValueError as exc:
        raise BadField(f"the year {short(value)!r} {exc}") from None


def _price(value: str) -> Decimal | None:
    try:
        return parse_price(value) if value else None
    except ValueError as exc:
        raise BadField(f"the price {short(value)!r} {exc}") from None
