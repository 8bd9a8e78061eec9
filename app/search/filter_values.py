"""The values of filters that no product has, with the nearest ones that products have."""

from __future__ import annotations

from sqlalchemy import Connection

from app.db.queries import filter_values
from app.duplicates.typos import nearest_spellings
from app.types import Filters, UnknownValue

MAX_COMPARED = 2000
"""Values of a column that an unknown value is compared with."""

MIN_LIKENESS = 0.6
"""Share of letters (0 to 1) that an unknown value and a near one have in common."""

MAX_NEAREST = 3


def may_be_unknown(filters: Filters, *, found: bool) -> bool:
    """Whether a brand, category or colour of the filters may be one that no product has: where
    something was `found`, only one of several alternatives may."""
    given = [filters.columns[name] for name in filter_values.COLUMNS if name in filters.columns]
    return any(not found or isinstance(value, list | tuple) for value in given)


def unknown(connection: Connection, filters: Filters) -> tuple[UnknownValue, ...]:
    """The brands, categories and colours of the filters that no product has in any case."""
    found = []
    for column in filter_values.COLUMNS:
        typed = filters.columns.get(column, ())
        values = list(map(str, typed)) if isinstance(typed, list | tuple) else [str(typed)]
        if values:
            for value in filter_values.unknown(connection, column, values):
                found.append(UnknownValue(column, value, _nearest(connection, column, value)))
    return tuple(found)


def _nearest(connection: Connection, column: str, value: str) -> tuple[str, ...]:
    """The values of the column that are spelt most like this one, without case."""
    if not value.strip():
        return ()
    present = filter_values.values(connection, column, MAX_COMPARED)
    return nearest_spellings(value, present, most=MAX_NEAREST, min_likeness=MIN_LIKENESS)
