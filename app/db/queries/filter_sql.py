"""Turns filters into SQL conditions with bound parameters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from app.db.text import check_text
from app.errors import BadInput
from app.types import Filters

COLUMNS = ("sku", "title", "brand", "category", "colour", "year", "price", "currency")
"""Columns of `product` that a filter can compare; any other name is an attribute."""

CASELESS = ("title", "brand", "category", "colour")
"""Columns whose values are compared in lower case; all but the title have an index for it."""

RANGE_COLUMNS = ("year", "price")
"""Columns that a filter can limit to a range."""


def condition(filters: Filters) -> tuple[str, dict[str, Any]]:
    """A condition on `product AS p` and the values bound in it, by psycopg parameter name.

    Raises BadInput for an unknown column and for text that PostgreSQL cannot store.
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
        if name in CASELESS:
            lowered = ", ".join(f"lower(CAST({bind(each)} AS text))" for each in values)
            parts.append(f"lower(p.{name}) = ANY(CAST(ARRAY[{lowered}] AS text[]))")
            continue
        if name in ("sku", "currency"):
            values = _cases(values)
        parts.append(f"p.{name} = ANY(CAST({bind(values)} AS {type_}[]))")
    for sign, limits in ((">=", filters.at_least), ("<=", filters.at_most)):
        for name, limit in limits.items():
            _check_column(name, RANGE_COLUMNS)
            parts.append(f"p.{name} {sign} {bind(limit)}")
    for name, value in filters.attributes.items():
        values = _as_list(value)
        _check_values([name, *values])
        forms = [form for each in values for form in _json_forms(name, each)]
        alternatives = [f"p.attributes @> CAST({bind(form)} AS jsonb)" for form in forms]
        parts.append(f"({' OR '.join(alternatives) or 'false'})")
    return " AND ".join(parts), bound


def _cases(values: Sequence[str]) -> list[str]:
    """Each value as it is, in capitals and in lower case."""
    forms = (form for each in values for form in (each, each.upper(), each.lower()))
    return list(dict.fromkeys(forms))


def _as_list(value: Any) -> list[Any]:
    return [value] if isinstance(value, str | int | Decimal) else list(value)


def _check_column(name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise BadInput(f"There is no column {name!r}; filter on one of {', '.join(known)}.")


def _check_values(values: Sequence[Any]) -> None:
    for value in values:
        check_text("filter", str(value))


def _json_forms(name: str, value: str) -> list[str]:
    """JSON objects with this key and value, for containment (`@>`) in `product.attributes`.

    The value as text, as the JSON scalar that the text spells (number, true, false, null), and each
    of them also as an element of a list.
    """
    texts = [json.dumps({name: each}) for each in (value, [value])]
    try:
        scalar = json.loads(value, parse_float=Decimal, parse_constant=lambda _: value)
    except (ValueError, RecursionError):
        return texts
    if isinstance(scalar, int | Decimal) and Decimal(scalar).adjusted() not in range(-99, 99):
        return texts  # PostgreSQL would expand such an exponent to a number of that many digits
    if scalar is not None and not isinstance(scalar, bool | int | Decimal):
        return texts
    # Formatted by hand: json.dumps cannot serialise a Decimal.
    return texts + [f"{{{json.dumps(name)}: {form}}}" for form in (value, f"[{value}]")]
