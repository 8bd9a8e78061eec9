"""Which products may match: from words to a condition in SQL."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from app.errors import BadInput
from app.values import Filters

COLUMNS = ("sku", "title", "brand", "category", "colour", "year", "price", "currency")
"""Columns of `product` (alias p) that can be asked to equal a value; others are attributes."""


def parse(conditions: list[str]) -> Filters:
    """Filters from words such as `brand=Kestrel` or `packaged=1` (an attribute).

    Raises BadInput for words without `=`, and for a year or a price that is no number.
    """
    columns: dict[str, str | int | Decimal] = {}
    attributes: dict[str, str] = {}
    for words in conditions:
        name, sign, value = words.partition("=")
        name = name.strip()
        if not sign or not name:
            raise BadInput(f"The filter {words!r} is not of the form column=value.")
        if name in columns or name in attributes:
            raise BadInput(f"The filter names {name!r} twice; a product has one {name}.")
        if name in COLUMNS:
            columns[name] = _value(name, value)
        else:
            attributes[name] = value
    return Filters(columns, attributes)


def condition(filters: Filters) -> tuple[str, dict[str, Any]]:
    """A condition on `product AS p` and the values bound in it, as the driver takes them.

    Raises BadInput for a column that does not exist and for text that PostgreSQL cannot hold.
    """
    for value in (*filters.columns.values(), *filters.attributes, *filters.attributes.values()):
        check_text("filter", str(value))
    parts: list[str] = ["true"]
    bound: dict[str, Any] = {}
    for number, (name, value) in enumerate(filters.columns.items()):
        if name not in COLUMNS:
            raise BadInput(f"There is no column {name!r}; filter on one of {', '.join(COLUMNS)}.")
        parts.append(f"p.{name} = %(column_{number})s")
        bound[f"column_{number}"] = value
    for number, (name, value) in enumerate(filters.attributes.items()):
        parts.append(f"p.attributes ->> %(name_{number})s = %(value_{number})s")
        bound |= {f"name_{number}": name, f"value_{number}": value}
    return " AND ".join(parts), bound


def check_text(what: str, text: str) -> None:
    """Raise BadInput for text that PostgreSQL cannot hold: with NUL, or not made of characters.

    Python reads bytes that are no text as lone surrogates (U+D800 to U+DFFF).
    """
    if "\0" in text:
        raise BadInput(f"The {what} {text!r} holds a NUL character; leave it out.")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise BadInput(f"The {what} {text!r} is not text; write it in UTF-8.")


def _value(column: str, value: str) -> str | int | Decimal:
    if column == "year":
        return _year(value)
    return _price(value) if column == "price" else value


def _year(value: str) -> int:
    try:
        return int(value)
    except ValueError as exc:
        raise BadInput(f"The year {value!r} in the filter is not a whole number.") from exc


def _price(value: str) -> Decimal:
    """An amount with four decimals, as the column keeps it."""
    try:
        price = Decimal(value)
        if price.is_finite() and abs(price) < 10**10:
            return price.quantize(Decimal("0.0001"))
    except InvalidOperation:
        pass
    raise BadInput(f"The price {value!r} in the filter is not a number such as 12.50.")
