"""Parses filter conditions such as `brand=Kestrel` and `year>=2019`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from difflib import get_close_matches
from typing import Any

from app.db.queries.filter_sql import COLUMNS, RANGE_COLUMNS
from app.errors import BadInput
from app.types import Filters, Value
from app.year_and_price import parse_price, parse_year

CONDITION = re.compile(r"(?P<name>.*?)\s*(?P<operator><=|>=|=)(?P<value>.*)", re.DOTALL)


def parse(conditions: Sequence[str]) -> Filters:
    """Filters from conditions: `brand=Kestrel`, `year>=2019`, `price=10..20`, `packaged=1`.

    A name that is no column is an attribute. Several values of one name are alternatives. Raises
    BadInput for a text instead of a list, for a malformed condition, and for a year or a price that
    is not a number.
    """
    if isinstance(conditions, str):
        raise BadInput(f"Filters are a list: [{conditions!r}].")
    columns: dict[str, list[Value]] = {}
    attributes: dict[str, list[str]] = {}
    bounds: dict[str, dict[str, int | Decimal]] = {">=": {}, "<=": {}}
    for condition in conditions:
        parts = CONDITION.fullmatch(condition)
        if parts is None or not parts["name"].strip() or parts["name"].strip()[-1] in "!<>":
            raise BadInput(
                f"The filter {condition!r} is not of the form column=value, column>=value, "
                "column<=value or column=low..high."
            )
        name, operator, value = parts["name"].strip(), parts["operator"], parts["value"].strip()
        for side, bound in _bounds(name, operator, value):
            if name in bounds[side]:
                raise BadInput(f"The filter bounds {name!r} twice with {side}; give it once.")
            bounds[side][name] = bound
        if operator == "=" and not _is_range(name, value):
            if name in COLUMNS:
                columns.setdefault(name, []).append(_value(name, value))
            else:
                attributes.setdefault(name, []).append(value)
    return Filters(
        {name: _one(values) for name, values in columns.items()},
        {name: _one(values) for name, values in attributes.items()},
        bounds[">="],
        bounds["<="],
    )


def unknown_attribute(attribute: str) -> str:
    """The hint for an attribute that no product has, with the column that was probably meant."""
    near = get_close_matches(attribute.lower(), COLUMNS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"no product has an attribute {attribute!r}{hint}"


def _one(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else tuple(values)


def _is_range(name: str, value: str) -> bool:
    return name in RANGE_COLUMNS and ".." in value


def _check_has_range(name: str) -> None:
    if name not in RANGE_COLUMNS:
        raise BadInput(f"Only {' and '.join(RANGE_COLUMNS)} have ranges; {name!r} has none.")


def _bounds(name: str, operator: str, value: str) -> list[tuple[str, int | Decimal]]:
    """The bounds a condition sets: one with >= or <=; up to two with low..high."""
    if operator != "=":
        _check_has_range(name)
        return [(operator, _number(name, value))]
    if not _is_range(name, value):
        return []
    low, _, high = value.partition("..")
    if high.startswith("."):
        raise BadInput(f"The range {value!r} of {name} has one dot too many; write 10..20.")
    ends = [(side, end.strip()) for side, end in ((">=", low), ("<=", high)) if end.strip()]
    if not ends:
        raise BadInput(f"The range {value!r} of {name} has no bounds; write for example 10..20.")
    bounds = [(side, _number(name, end)) for side, end in ends]
    if len(bounds) == 2 and bounds[0][1] > bounds[1][1]:
        raise BadInput(f"The range {value!r} of {name} ends before it begins; swap its ends.")
    return bounds


def _value(column: str, value: str) -> Value:
    return _number(column, value) if column in RANGE_COLUMNS else value


def _number(column: str, value: str) -> int | Decimal:
    parse = parse_year if column == "year" else parse_price
    try:
        return parse(value, to_compare=True)
    except ValueError as exc:
        raise BadInput(f"The {column} {value!r} in the filter {exc}.") from exc
