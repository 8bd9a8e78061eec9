"""Which products may match: from words to a condition in SQL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from difflib import get_close_matches
from typing import Any

from app.db.queries.filter_sql import COLUMNS, RANGE_COLUMNS
from app.errors import BadInput
from app.types import Filters, Value, parse_price, parse_year

FORM = re.compile(r"(?P<name>.*?)\s*(?P<sign><=|>=|=)(?P<value>.*)", re.DOTALL)


def parse(conditions: Sequence[str]) -> Filters:
    """Filters from words: `brand=Kestrel`, `year>=2019`, `price=10..20`, `packaged=1` (attribute).

    The same name with several values lets each of them pass. Raises BadInput for words of another
    form, and for a year or a price that is no number.
    """
    columns: dict[str, list[Value]] = {}
    attributes: dict[str, list[str]] = {}
    bounds: dict[str, dict[str, int | Decimal]] = {">=": {}, "<=": {}}
    for words in conditions:
        form = FORM.fullmatch(words)
        if form is None or not form["name"].strip() or form["name"].strip()[-1] in "!<>":
            raise BadInput(
                f"The filter {words!r} is not of the form column=value, column>=value, "
                "column<=value or column=low..high."
            )
        name, sign, value = form["name"].strip(), form["sign"], form["value"].strip()
        for each, bound in _bounds(name, sign, value):
            if name in bounds[each]:
                raise BadInput(f"The filter bounds {name!r} twice with {each}; say it once.")
            bounds[each][name] = bound
        if sign == "=" and not _is_range(name, value):
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


def meant(attribute: str) -> str:
    """What to say of an attribute that no product has."""
    near = get_close_matches(attribute.lower(), COLUMNS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"no product has an attribute {attribute!r}{hint}"


def _one(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else tuple(values)


def _is_range(name: str, value: str) -> bool:
    return name in RANGE_COLUMNS and ".." in value


def _check_ordered(name: str) -> None:
    if name not in RANGE_COLUMNS:
        raise BadInput(f"Only {' and '.join(RANGE_COLUMNS)} have ranges; {name!r} has none.")


def _bounds(name: str, sign: str, value: str) -> list[tuple[str, int | Decimal]]:
    """The bounds that words set: one with >= or <=, two with low..high, either left out."""
    if sign != "=":
        _check_ordered(name)
        return [(sign, _number(name, value))]
    if not _is_range(name, value):
        return []
    low, _, high = value.partition("..")
    if high.startswith("."):
        raise BadInput(f"The range {value!r} of {name} has a dot too many; write 10..20.")
    given = [(each, limit.strip()) for each, limit in ((">=", low), ("<=", high)) if limit.strip()]
    if not given:
        raise BadInput(f"The range {value!r} of {name} has no bounds; write for example 10..20.")
    found = [(each, _number(name, limit)) for each, limit in given]
    if len(found) == 2 and found[0][1] > found[1][1]:
        raise BadInput(f"The range {value!r} of {name} ends before it begins; turn it round.")
    return found


def _value(column: str, value: str) -> Value:
    return _number(column, value) if column in RANGE_COLUMNS else value


def _number(column: str, value: str) -> int | Decimal:
    parse = parse_year if column == "year" else parse_price
    try:
        return parse(value, to_compare=True)
    except ValueError as exc:
        raise BadInput(f"The {column} {value!r} in the filter {exc}.") from exc
