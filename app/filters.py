"""Which products may match, as a condition in SQL."""

from __future__ import annotations

from typing import Any

from app.errors import BadInput
from app.values import Filters

COLUMNS = ("sku", "brand", "category", "colour", "year", "currency")
"""Columns of `product` (alias p) that can be asked to equal a value; others are attributes."""


def parse(conditions: list[str]) -> Filters:
    """Filters from words such as `brand=Kestrel` or `packaged=1` (an attribute).

    Raises BadInput for words without `=` and for a year that is no number.
    """
    columns: dict[str, str | int] = {}
    attributes: dict[str, str] = {}
    for words in conditions:
        name, sign, value = words.partition("=")
        name = name.strip()
        if not sign or not name:
            raise BadInput(f"The filter {words!r} is not of the form column=value.")
        if name in columns or name in attributes:
            raise BadInput(f"The filter names {name!r} twice; a product has one {name}.")
        if name in COLUMNS:
            columns[name] = _year(value) if name == "year" else value
        else:
            attributes[name] = value
    return Filters(columns, attributes)


def condition(filters: Filters) -> tuple[str, dict[str, Any]]:
    """A condition on `product AS p` and the values bound in it."""
    parts: list[str] = ["true"]
    bound: dict[str, Any] = {}
    for number, (name, value) in enumerate(filters.columns.items()):
        if name not in COLUMNS:
            raise BadInput(f"There is no column {name!r}; filter on one of {', '.join(COLUMNS)}.")
        parts.append(f"p.{name} = :column_{number}")
        bound[f"column_{number}"] = value
    for number, (name, value) in enumerate(filters.attributes.items()):
        parts.append(f"p.attributes ->> :name_{number} = :value_{number}")
        bound |= {f"name_{number}": name, f"value_{number}": value}
    return " AND ".join(parts), bound


def _year(value: str) -> int:
    try:
        return int(value)
    except ValueError as exc:
        raise BadInput(f"The year {value!r} in the filter is not a whole number.") from exc
