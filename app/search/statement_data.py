"""StatementData: fills a page from the one statement that found its hits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from typing import Any

import numpy as np

from app.config import Settings
from app.db.queries import calibration, fold_pictures, nearest, page_lookups, products, verdicts
from app.db.queries.products import SameWords
from app.db.queries.single_statement import PageExtras, StatementResult
from app.duplicates.evidence import FoldCuts, PictureEvidence
from app.search.dedup import needs_dedup
from app.search.fast_path import FastPath, NotAnswered
from app.search.retrieval import (
    NearestRequest,
    RetrievalResult,
    build_result,
    filtered_build_result,
)
from app.types import Build, Count, Hit, Model, Product, Query, Vector, Verdict


class StatementData:
    """What a query's page is made from, out of one statement by a build.

    Every method raises NotAnswered for what the statement did not read; the page is then filled by
    several statements. Products of earlier pages, and thumbnails beyond those that a page usually
    shows, take a statement of their own.
    """

    def __init__(
        self, fast_path: FastPath, model: Model, build: Build, query: Query, settings: Settings
    ) -> None:
        self._fast_path = fast_path
        self.model = model
        self._build = build
        self._query = query
        self._settings = settings
        self._result: StatementResult | None = None
        self._rows: dict[int, Any] = {}
        self._earlier: dict[int, Any] = {}
        self._compared: Set[str] = frozenset()
        self._evidence: PictureEvidence | None = None

    @property
    def lag(self) -> float | None:
        """Seconds that a replica is behind, None on a primary."""
        return self._read.lag

    @property
    def _read(self) -> StatementResult:
        assert self._result is not None, "hits are retrieved first"
        return self._result

    def own_vector(self, sku: str) -> tuple[int, Vector]:
        """The id of the product asked with, and the mean of its embeddings, shape (dim,)."""
        with self._fast_path.connection() as connection:
            found = page_lookups.own_vectors(connection, self.model, sku)
        if found is None or not len(found[1]):
            raise NotAnswered  # several statements say what is wrong
        return found[0], found[1].mean(axis=0)

    def retrieve(self, request: NearestRequest) -> RetrievalResult:
        """The nearest products; a second call reads everything anew."""
        if request.hidden or request.also:
            raise NotAnswered
        clause = nearest.filter_clause(request.filters)
        result = self._fast_path.find(
            self.model, self._build, request.vector, request.k, clause,
            excluded=tuple(request.excluded), extras=self._extras(),
        )  # fmt: skip
        if result is None:
            raise NotAnswered
        self._result, self._evidence = result, None
        self._rows = {row.product_id: row for row in result.rows}
        if not {self._query.sku, *self._query.shown}.isdisjoint(row.sku for row in result.rows):
            raise NotAnswered  # deleted and added again since its id was read
        if clause.condition:
            return filtered_build_result(
                result.candidates, self._build, result.delta_rows, deeper=result.deeper
            )
        return build_result(result.candidates, self._build, result.delta_rows)

    def _extras(self) -> PageExtras | None:
        query = self._query
        if not needs_dedup(query):
            return None
        return PageExtras(
            thumbnails=query.k + query.k // 3,
            folds=query.fold,
            vectors=query.near_match is not None,
            earlier=tuple(self._earlier),
            shared=self._settings.shared_picture_products + 1,
        )

    def earlier(self, request: NearestRequest, skus: Sequence[str]) -> list[Hit]:
        """The products of earlier pages by their nearest pictures."""
        with self._fast_path.connection() as connection:
            rows = page_lookups.earlier(connection, self.model, request.vector, skus)
        self._earlier = {row.id: row for row in rows}
        hits = (Hit(row.id, row.picture_id, row.distance) for row in rows)
        return sorted(hits, key=lambda hit: (hit.distance, hit.product_id))

    def products(self, ids: Sequence[int]) -> Mapping[int, Product]:
        """Products by id."""
        return {id_: self._product(id_) for id_ in ids}

    def _product(self, id_: int) -> Product:
        row = self._rows.get(id_) or self._earlier.get(id_)
        if row is None:
            raise NotAnswered
        return products.product_from_row(row)

    def vectors(self, pictures: Sequence[int]) -> Mapping[int, Vector]:
        """Embeddings by picture id."""
        rows = (*self._rows.values(), *self._earlier.values())
        packed = {row.picture_id: row.vector for row in rows}
        if not packed.keys() >= set(pictures):
            raise NotAnswered
        return {
            id_: fold_pictures.unpacked(packed[id_], self.model)[0].astype(np.float32)
            for id_ in pictures
        }

    def verdicts(self, skus: Sequence[str]) -> list[Verdict]:
        """The verdicts on all products that were read: those on others join nothing."""
        return verdicts.from_json(self._first("verdicts"))

    def pictures(self, skus: Sequence[str]) -> PictureEvidence:
        """The pictures of all products that are compared, and the cuts of the model."""
        if self._evidence is None:
            packed = {row.sku: row.pictures for row in self._read.compared}
            vectors = {
                sku: fold_pictures.unpacked(data, self.model)
                for sku, data in packed.items() if data
            }  # fmt: skip
            cuts = FoldCuts.of_model(self.model, calibration.from_json(self._first("calibrations")))
            self._compared, self._evidence = packed.keys(), PictureEvidence(vectors, cuts)
        if not self._compared >= set(skus):
            raise NotAnswered  # they are alike by a typing error or an identifier
        return self._evidence

    def shown_by_more(self, pictures: Collection[int], most: int) -> Mapping[int, Count]:
        """None: a page with a picture that very many products show takes several statements."""
        counts = {row.picture_id: row.sharing for row in self._rows.values()}
        if any(counts.get(id_, most + 1) > most for id_ in pictures):
            raise NotAnswered
        return {}

    def details(self, hits: Sequence[tuple[int, int]]) -> Mapping[int, Any]:
        """Rows of details by product id."""
        rows = {id_: self._rows[id_] for id_, _ in hits}
        without = {row.picture_id for row in rows.values() if row.thumbnail is None}
        if not without:
            return rows
        with self._fast_path.connection() as connection:
            found = page_lookups.thumbnails(connection, sorted(without))
        if not found.keys() >= without:
            raise NotAnswered  # deleted meanwhile
        return {
            id_: row if row.thumbnail is not None else row._replace(thumbnail=found[row.picture_id])
            for id_, row in rows.items()
        }

    def same_words(self, keys: Sequence[str], limit: int) -> Mapping[str, SameWords]:
        """The products with each identity key that several have."""
        if not {row.key for row in self._rows.values()} >= set(keys):
            raise NotAnswered  # the words were changed without the key
        found: dict[str, SameWords] = {}
        for row in self._read.compared:
            if row.key in keys:
                listed = found.get(row.key, SameWords((), row.total)).products
                if len(listed) < limit:
                    product = products.product_from_row(row)
                    found[row.key] = SameWords((*listed, product), row.total)
        return found

    def _first(self, column: str) -> Sequence[Mapping[str, Any]]:
        """The objects in a column of JSON that only the first row has."""
        rows = self._read.rows
        return (getattr(rows[0], column) if rows else None) or ()
