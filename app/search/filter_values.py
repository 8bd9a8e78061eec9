"""Resolves the values of filters to the spellings that products have, without case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rapidfuzz import process
from rapidfuzz.distance import OSA
from sqlalchemy import Connection

from app.db.queries import filter_values
from app.db.text import check_text
from app.types import Filters, UnknownValue, Value

MAX_COMPARED = 2000
"""Values of a column that an unknown value is compared with."""

MIN_LIKENESS = 0.6
"""Share of letters (0 to 1) that an unknown value and a near one have in common."""

MAX_NEAREST = 3


def resolve(connection: Connection, filters: Filters) -> tuple[Filters, tuple[UnknownValue, ...]]:
    """The filters with each sku, brand, category, colour and currency as products write it, and
    the values that no product has.

    Several spellings of a value are alternatives; an unknown value stays as it is and matches
    nothing. Equality with stored values remains, so that indexes and cached filters serve. Raises
    BadInput for text that PostgreSQL cannot store.
    """
    columns = dict(filters.columns)
    unknown: list[UnknownValue] = []
    for column in (*filter_values.COLUMNS, "sku"):
        if column in columns:
            columns[column], missing = _resolved(connection, column, _texts(columns[column]))
            unknown += missing
    if "currency" in columns:
        typed = _texts(columns["currency"])
        columns["currency"] = tuple(
            dict.fromkeys(form for each in typed for form in (each, each.upper(), each.lower()))
        )
    return replace(filters, columns=columns), tuple(unknown)


def _resolved(
    connection: Connection, column: str, typed: Sequence[str]
) -> tuple[Value | tuple[str, ...], list[UnknownValue]]:
    """One value as it is, several as a tuple: the key of a cached filter stays the same."""
    for value in typed:
        check_text("filter", value)
    if column == "sku":
        spellings = filter_values.skus(connection, typed)
    else:
        spellings = filter_values.spellings(connection, column, typed)
    missing = [value for value in typed if not spellings[value]]
    known = (stored for value in typed for stored in spellings[value] or (value,))
    stored = tuple(dict.fromkeys(known))
    unknown = [
        UnknownValue(column, value, _nearest(connection, column, value)) for value in missing
    ]
    return stored[0] if len(stored) == 1 else stored, unknown


def _texts(value: Value | Sequence[Value]) -> list[str]:
    values = value if isinstance(value, list | tuple) else [value]
    return [str(each) for each in values]


def _nearest(connection: Connection, column: str, value: str) -> tuple[str, ...]:
    """The values of the column that are spelt most like this one, without case."""
    if column == "sku" or not value.strip():
        return ()
    present = filter_values.values(connection, column, MAX_COMPARED)
    found = process.extract(
        value, present, scorer=OSA.normalized_similarity, processor=str.lower,
        limit=MAX_NEAREST, score_cutoff=MIN_LIKENESS,
    )  # fmt: skip
    return tuple(each for each, _, _ in found)
