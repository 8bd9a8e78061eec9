"""Filters as SQL conditions with bound parameters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from app.db.text import check_text
from app.errors import BadInput
from app.types import Filters

COLUMNS = ("sku", "title", "brand", "category", "colour", "year", "price", "currency")
"""Columns of `product` (alias p) that can be asked to equal a value; others are attributes."""


RANGE_COLUMNS = ("year", "price")
"""Columns that can be asked to lie in a range."""


def condition(filters: Filters) -> tuple[str, dict[str, Any]]:
    """A condition on `product AS p` and the values bound in it, as the driver takes them.

    Raises BadInput for a column that does not exist and for text that PostgreSQL cannot hold.
    """
    parts: list[str] = ["true"]
    bound: dict[str, Any] = {}

    def bind(value: Any) -> str:
        bound[f"filter_{len(bound)}"] = value
        return f"%(filter_{len(bound) - 1})s"

    for name, value in filters.columns.items():
        _check_column(name, COLUMNS)
        values = _as_list(value)
        _check_values(values)
        type_ = {"year": "integer", "price": "numeric"}.get(name, "text")
        parts.append(f"p.{name} = ANY(CAST({bind(values)} AS {type_}[]))")
    for sign, limits in ((">=", filters.at_least), ("<=", filters.at_most)):
        for name, limit in limits.items():
            _check_column(name, RANGE_COLUMNS)
            parts.append(f"p.{name} {sign} {bind(limit)}")
    for name, value in filters.attributes.items():
        values = _as_list(value)
        _check_values([name, *values])
        forms = [form for each in values for form in _json_forms(name, each)]
        held = [f"p.attributes @> CAST({bind(form)} AS jsonb)" for form in forms]
        parts.append(f"({' OR '.join(held) or 'false'})")
    return " AND ".join(parts), bound


def _as_list(value: Any) -> list[Any]:
    return [value] if isinstance(value, str | int | Decimal) else list(value)


def _check_column(name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise BadInput(f"There is no column {name!r}; filter on one of {', '.join(known)}.")


def _check_values(values: Sequence[Any]) -> None:
    for value in values:
        check_text("filter", str(value))


def _json_forms(name: str, value: str) -> list[str]:
    """The jsonb objects that hold a key with this value: as text, as what the text says in JSON
    (a number, true, false, null), and among others in a list."""
    found: list[Any] = [value, [value]]
    try:
        said = json.loads(value, parse_float=Decimal, parse_constant=lambda _: value)
    except (ValueError, RecursionError):
        said = value
    if isinstance(said, int | Decimal) and Decimal(said).adjusted() not in range(-99, 99):
        said = value  # no number that anybody wrote, and too long for PostgreSQL
    if said is None or isinstance(said, bool | int | Decimal):
        # Written by hand: json turns a Decimal into nothing it can write.
        return [json.dumps({name: each}) for each in found] + [
            f"{{{json.dumps(name)}: {form}}}" for form in (value, f"[{value}]")
        ]
    return [json.dumps({name: each}) for each in found]
