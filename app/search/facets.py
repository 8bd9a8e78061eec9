"""FacetService: values and ranges to filter the catalogue by, read from one snapshot."""

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

MAX_VALUES = 500
"""Values of a column that are listed, the most frequent ones."""

NEWEST = 8
"""Newest products to start a search from without a photo."""


@dataclass(frozen=True, slots=True)
class Facets:
    """The values of each of COLUMNS, the bounds of years and prices, and the newest products."""

    values: Mapping[str, FacetValues]
    bounds: FacetRange
    newest: tuple[tuple[Product, StoredPicture], ...] = ()


class FacetService:
    """Reads the facets. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def read(self) -> Facets:
        """The current facets of all products.

        Counts every product, which takes about a second for a million: cache the result. Raises
        SchemaMismatch and DatabaseUnavailable.
        """
        with snapshot(self._engine) as connection:
            check_schema(connection)
            values = {name: facets.values(connection, name, MAX_VALUES) for name in COLUMNS}
            newest = tuple(facets.newest(connection, NEWEST))
            return Facets(values, facets.bounds(connection), newest)
