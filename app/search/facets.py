"""FacetService: what the catalogue can be narrowed by, read in one call from one snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Engine

from app.db.engine import check_schema, snapshot
from app.db.queries import facets
from app.db.queries.facets import FacetRange, FacetValues
from app.types import Product, StoredPicture

COLUMNS = ("brand", "category", "colour")
"""Columns whose values are counted."""

MOST_VALUES = 500
"""Values of a column that somebody can still choose from."""

NEWEST = 8
"""Products to begin with, for somebody who has no photo at hand."""


@dataclass(frozen=True, slots=True)
class Facets:
    """The values of each of COLUMNS, the bounds of years and prices, and the newest products."""

    values: Mapping[str, FacetValues]
    bounds: FacetRange
    newest: tuple[tuple[Product, StoredPicture], ...] = ()


class FacetService:
    """Reads the facets. Safe to use from several threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def read(self) -> Facets:
        """The facets of all products as they are now.

        Counts every product, which takes a second or so where there are a million: keep the answer
        for a while. Raises SchemaMismatch and DatabaseUnavailable.
        """
        with snapshot(self._engine) as connection:
            check_schema(connection)
            values = {name: facets.values(connection, name, MOST_VALUES) for name in COLUMNS}
            newest = tuple(facets.newest(connection, NEWEST))
            return Facets(values, facets.bounds(connection), newest)
