"""FacetService: values and ranges to filter by, of the whole catalogue or of a query's results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine

from app.db.engine import check_schema, snapshot
from app.db.queries import catalog_stats, facets, filter_sql, match_counts, nearest
from app.db.queries.facets import FacetRange, FacetValues
from app.search.page_hits import ROUNDING, PageRequest
from app.search.query_encoder import has_pictures
from app.search.service import SearchService
from app.search.vector_cache import VectorCache
from app.types import Filters, Query

__all__ = ["COLUMNS", "FacetRange", "FacetService", "FacetValues", "Facets"]

COLUMNS = ("brand", "category", "colour")
"""Columns whose values are counted by default."""

TEXT_COLUMNS = (*COLUMNS, "currency")
"""Columns that may be facets; any other name is an attribute."""

RANGES = ("year", "price")

MAX_VALUES = 500
"""Values of a column that are listed, the most frequent ones."""

DEPTH = 1000
"""Products nearest to a photo whose values are counted."""

WORDS_DEPTH = 10_000
"""Products with the words whose values are counted."""

MAX_FEW_VALUES = 30
LEAST_SHARE = 0.5
"""Attributes with at most so many values, that at least this share of the products has, are facets
without being named in the settings."""


@dataclass(frozen=True, slots=True)
class Facets:
    """The values of columns and attributes, the bounds of years and prices.

    `depth` is the number of products up to which a query's results were counted, if there are more
    than that; None if all were counted. `path` and `reason` are how the products that were counted
    were found, and `model` is the name of the model that found them, None if none was needed.
    """

    values: Mapping[str, FacetValues]
    bounds: FacetRange
    depth: int | None = None
    model: str | None = None
    path: str = "exact"
    reason: str = "all products are counted"


class FacetService:
    """Reads the facets. Thread-safe.

    `search` answers which products a query finds; `names` are the facets in the form of
    `Settings.facets`.
    """

    def __init__(self, engine: Engine, search: SearchService, names: str = "auto") -> None:
        self._engine = engine
        self._search = search
        self._names = names

    def read(self) -> Facets:
        """The current facets of all products.

        Counts every product, which takes about a second for a million: cache the result. Beyond
        `catalog_stats.COUNTED_ROWS` the values of WORDS_DEPTH products from all over the catalogue
        are counted, and the number of products is an estimate. Raises SchemaMismatch and
        DatabaseUnavailable.
        """
        with snapshot(self._engine) as connection:
            check_schema(connection)
            if catalog_stats.is_large(connection):
                return _of_sample(connection)
            values = {name: facets.values(connection, name, MAX_VALUES) for name in COLUMNS}
            return Facets(values, facets.bounds(connection))

    def of_query(self, query: Query, cache: VectorCache | None = None) -> Facets:
        """The facets of what a query finds under its filters; each ignores its own selection.

        By words: the products that have them, at most WORDS_DEPTH. By pictures, a sku or a vector:
        the DEPTH nearest products that pass the filters. Products are counted before duplicates are
        folded. A facet without values is left out, unless the query filters by it. Raises what
        `SearchService.search` raises.
        """
        with self._search.opened(query, cache) as request:
            connection = request.in_snapshot.connection
            found = self._counted(connection, query.filters, _pools_of(request))
            return replace(found, model=request.in_snapshot.model.name)

    def of_filters(self, filters: Filters) -> Facets:
        """The facets of the products that pass the filters, of at most WORDS_DEPTH of them; each
        ignores its own selection. Raises BadInput, SchemaMismatch and DatabaseUnavailable."""
        with snapshot(self._engine) as connection:
            check_schema(connection)

            def find(filters: Filters, at_most: int) -> _Pool:
                ids = facets.passing(connection, nearest.filter_clause(filters), at_most)
                return _Pool(ids, "exact", "the products that pass the filters are counted")

            return self._counted(connection, filters, _Pools(find, WORDS_DEPTH))

    def _counted(self, connection: Connection, filters: Filters, pools: _Pools) -> Facets:
        values = dict(self._values(connection, filters, pools))
        bounds = _bounds(connection, filters, pools)
        own = pools.pool(filters)
        depth = pools.depth if pools.cut else None
        return Facets(values, bounds, depth=depth, path=own.path, reason=own.reason)

    def _values(
        self, connection: Connection, filters: Filters, pools: _Pools
    ) -> Iterator[tuple[str, FacetValues]]:
        chosen = {*filters.columns, *filters.attributes}
        attributes = []
        for name in self._offered(connection, chosen):
            if name not in TEXT_COLUMNS:
                attributes.append(name)
                continue
            ids = pools.ids(_without(filters, name))
            values = facets.values_among(connection, name, ids, MAX_VALUES)
            if values.counts or name in chosen:
                yield name, values
        unchosen = [name for name in attributes if name not in filters.attributes]
        found = facets.attributes_among(connection, unchosen, pools.ids(filters), MAX_VALUES)
        for name in attributes:
            if name in filters.attributes:
                ids = pools.ids(_without(filters, name))
                found |= {name: FacetValues()}
                found |= facets.attributes_among(connection, [name], ids, MAX_VALUES)
            if name in found:
                yield name, found[name]

    def _offered(self, connection: Connection, chosen: set[str]) -> list[str]:
        """The names of the facets: those of the settings, or discovered, then those chosen."""
        if self._names.strip() == "auto":
            few = facets.few_valued_attributes(
                connection, most_values=MAX_FEW_VALUES, least_share=LEAST_SHARE
            )
            names = [*COLUMNS, *few]
        else:
            names = [name.strip() for name in self._names.split(",") if name.strip()]
        more = sorted(chosen - {*names})
        return [name for name in dict.fromkeys((*names, *more)) if _can_be_filtered(name)]


def _of_sample(connection: Connection) -> Facets:
    """The facets of products from all over a large catalogue, with the bounds of all."""
    ids = facets.sample_ids(connection, WORDS_DEPTH)
    values = {
        name: facets.values_among(connection, name, ids, MAX_VALUES) for name in COLUMNS
    }  # fmt: skip
    bounds = facets.bounds(connection, catalog_stats.estimated_products(connection))
    reason = "products from all over the catalogue are counted"
    return Facets(values, bounds, depth=len(ids), reason=reason)


@dataclass(frozen=True, slots=True)
class _Pool:
    """Products (ids), the path that found them, and the reason for that path."""

    ids: list[int]
    path: str
    reason: str


class _Pools:
    """The products (ids) found under variants of some filters, each read once.

    `find` gives at most so many products that pass filters; `depth` are counted.
    """

    def __init__(self, find: Callable[[Filters, int], _Pool], depth: int) -> None:
        self._find = find
        self._by_filters: list[tuple[Filters, _Pool]] = []
        self.depth = depth
        self.cut = False
        """Whether one of the pools has more products than `depth`."""

    def ids(self, filters: Filters) -> list[int]:
        """The products found under these filters, at most `depth`."""
        return self.pool(filters).ids

    def pool(self, filters: Filters) -> _Pool:
        """The same, with how they were found."""
        for known, pool in self._by_filters:
            if known == filters:
                return pool
        found = self._find(filters, self.depth + 1)
        self.cut = self.cut or len(found.ids) > self.depth
        pool = replace(found, ids=found.ids[: self.depth])
        self._by_filters.append((filters, pool))
        return pool


def _pools_of(request: PageRequest) -> _Pools:
    """The products that a query finds: those with its words, or those nearest to it."""
    words_only = request.catalogue_words is not None and not has_pictures(request.query)
    if words_only:
        return _Pools(partial(_with_words, request), WORDS_DEPTH)
    return _Pools(partial(_nearest, request), DEPTH)


def _with_words(request: PageRequest, filters: Filters, at_most: int) -> _Pool:
    retrieval = request.in_snapshot
    assert request.catalogue_words is not None
    words, _ = request.catalogue_words
    ids = match_counts.matching_ids(
        retrieval.connection, retrieval.model, nearest.filter_clause(filters), words,
        at_most=at_most, excluded=retrieval.excluded,
    )  # fmt: skip
    return _Pool(ids, "words", "the products that have the words are counted")


def _nearest(request: PageRequest, filters: Filters, at_most: int) -> _Pool:
    found = request.data.retrieve(replace(request.retrieval, k=at_most, filters=filters))
    least = request.query.min_similarity
    ids = [
        hit.product_id
        for hit in found.candidates.hits
        if least is None or hit.similarity >= least - ROUNDING
    ]
    return _Pool(ids, found.path, found.reason.text)


def _bounds(connection: Connection, filters: Filters, pools: _Pools) -> FacetRange:
    """The number of products found, and the range of each of RANGES under the other filters."""
    year, price = (
        facets.bounds_among(connection, pools.ids(_without(filters, name))) for name in RANGES
    )
    products = len(pools.ids(filters))
    return FacetRange(products, year.first_year, year.last_year, price.lowest, price.highest)


def _without(filters: Filters, name: str) -> Filters:
    """The filters without what is chosen of one facet."""

    def rest(chosen: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in chosen.items() if key != name}

    return Filters(
        rest(filters.columns), rest(filters.attributes), rest(filters.at_least),
        rest(filters.at_most),
    )  # fmt: skip


def _can_be_filtered(name: str) -> bool:
    """Whether a condition `name=value` filters by the values that a facet of this name counts."""
    if name in filter_sql.COLUMNS:
        return name in TEXT_COLUMNS
    return bool(name) and name == name.strip() and not set(name) & set("=<>!")
