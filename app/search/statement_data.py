"""StatementData: fills a page from the one statement that found its hits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from math import nan
from typing import Any

import numpy as np

from app.config import Settings
from app.db.queries import calibration, fold_pictures, nearest, page_lookups, products, verdicts
from app.db.queries.single_statement import PageExtras
from app.duplicates.evidence import FoldCuts, PictureEvidence
from app.search.dedup import needs_dedup
from app.search.fast_path import FastPath, NotAnswered
from app.search.retrieval import (
    NearestRequest,
    RetrievalResult,
    build_result,
    filtered_build_result,
)
from app.types import (
    Build,
    Calibration,
    Count,
    EmbeddingRows,
    Hit,
    Model,
    Product,
    Query,
    Vector,
    Verdict,
)


@dataclass
class _Evidence:
    """The pictures that were read: packed ones by sku (None: the product has none to compare), and
    the calibrations of the products' categories."""

    packed: dict[str, bytes | None]
    calibrations: Sequence[Calibration]
    unpacked: dict[str, EmbeddingRows] = field(default_factory=dict)
    _made: PictureEvidence | None = None

    @property
    def skus(self) -> Set[str]:
        """The products whose pictures were read."""
        return self.packed.keys()

    def add(
        self,
        skus: Sequence[str],
        vectors: Mapping[str, EmbeddingRows],
        calibrations: Sequence[Calibration],
    ) -> None:
        """Add the pictures of further products."""
        self._made = None
        self.packed |= dict.fromkeys(skus)
        self.unpacked |= vectors
        self.calibrations = (*self.calibrations, *calibrations)

    def of(self, model: Model) -> PictureEvidence:
        """All pictures and the cuts of the model."""
        if self._made is None:
            packed = {sku: data for sku, data in self.packed.items() if data}
            vectors = fold_pictures.each_unpacked(packed, model) | self.unpacked
            self._made = PictureEvidence(vectors, FoldCuts.of_model(model, self.calibrations))
        return self._made


class StatementData:
    """What a query's page is made from, out of one statement by a build.

    Products of earlier pages, thumbnails beyond those that a page usually shows, and pictures of
    products that are alike by something else than their words take a small statement each, as do
    verdicts on products that are the same as these. A method
    raises NotAnswered for anything else that was not read; the page is then filled by several
    statements.
    """

    def __init__(
        self, fast_path: FastPath, model: Model, build: Build, query: Query, settings: Settings
    ) -> None:
        self._fast_path = fast_path
        self.model = model
        self._build = build
        self._query = query
        self._settings = settings
        self.lag: float | None = None
        """Seconds that a replica is behind, None on a primary; known once hits are retrieved."""
        self._read: Sequence[Any] = ()
        """The rows that verdicts and pictures are taken from."""
        self._rows: dict[int, Any] = {}
        self._hits: dict[tuple[int, int], Any] = {}
        self._earlier: dict[int, Any] = {}
        self._own_pictures: tuple[int, ...] = ()
        self._packed: dict[int, bytes] = {}
        """Embeddings by picture id, where near-duplicates are dropped."""
        self._evidence: _Evidence | None = None

    def own_vector(self, sku: str) -> tuple[int, Vector]:
        """The id of the product asked with, and the mean of its embeddings, shape (dim,)."""
        with self._fast_path.connection() as connection:
            found = page_lookups.own_vectors(connection, self.model, sku)
        if found is None or not len(found.vectors):
            raise NotAnswered  # several statements say what is wrong
        self._own_pictures = found.pictures
        return found.id, found.vectors.mean(axis=0)

    def retrieve(self, request: NearestRequest) -> RetrievalResult:
        """The nearest products; a second call reads everything anew, but products of the first one
        are still known."""
        if request.also:
            raise NotAnswered
        clause = nearest.filter_clause(request.filters)
        result = self._fast_path.find(
            self.model, self._build, request.vector, request.k, clause,
            excluded=tuple(request.excluded), hidden=tuple(request.hidden), passed=request.passed,
            extras=self._extras(),
        )  # fmt: skip
        if result is None:
            raise NotAnswered
        self._rows |= {row.product_id: row for row in result.rows}
        self._hits |= {(row.product_id, row.picture_id): row for row in result.rows}
        self._remember(result.rows, result.lag)
        if clause.condition:
            return filtered_build_result(
                result.candidates, self._build, result.delta_rows, deeper=result.deeper
            )
        return build_result(result.candidates, self._build, result.delta_rows)

    def _remember(self, rows: Sequence[Any], lag: float | None) -> None:
        """Take verdicts and pictures from these rows from now on."""
        self._read, self._evidence, self.lag = rows, None, lag
        if self._query.near_match is not None:
            self._packed |= {row.picture_id: row.vector for row in rows}
        if not {self._query.sku, *self._query.shown}.isdisjoint(row.sku for row in rows):
            raise NotAnswered  # deleted and added again since its id was read

    def _extras(self) -> PageExtras | None:
        query = self._query
        if not needs_dedup(query):
            return None
        return PageExtras(
            thumbnails=query.k + query.k // 3,
            folds=query.fold,
            vectors=query.near_match is not None,
            earlier=tuple(row.sku for row in (*self._earlier.values(), *self._rows.values())),
            shared=self._settings.shared_picture_products + 1,
        )

    def earlier(self, request: NearestRequest, skus: Sequence[str]) -> list[Hit]:
        """The products of earlier pages by their nearest pictures."""
        with self._fast_path.connection() as connection:
            if not needs_dedup(self._query):
                rows = page_lookups.pictures_of(connection, skus)
                self._earlier = {row.id: row for row in rows}
                return [Hit(row.id, row.all_pictures[0], nan) for row in rows]
            rows = page_lookups.earlier(
                connection, self.model, request.vector, skus,
                vectors=self._query.near_match is not None,
            )  # fmt: skip
        self._earlier = {row.id: row for row in rows}
        if self._query.near_match is not None:
            self._packed |= {row.picture_id: row.vector for row in rows}
        hits = (Hit(row.id, row.picture_id, row.distance) for row in rows)
        return sorted(hits, key=lambda hit: (hit.distance, hit.product_id))

    def pictures_of(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The pictures of the product asked with and those of earlier pages."""
        shown = (picture for row in self._earlier.values() for picture in row.all_pictures)
        return (*self._own_pictures, *shown)

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
        if not self._packed.keys() >= set(pictures):
            raise NotAnswered
        return {
            id_: fold_pictures.unpacked(self._packed[id_], self.model)[0].astype(np.float32)
            for id_ in pictures
        }

    def verdicts(self, skus: Sequence[str]) -> list[Verdict]:
        """The verdicts on all products that were read: those on others join nothing, unless they
        are the same as one of these, which takes a small statement."""
        told = verdicts.from_json(self._told("verdicts"))
        if not told:
            return []
        known = {row.sku for row in (*self._earlier.values(), *self._rows.values())}
        if not verdicts.lead_beyond(told, known):
            return told
        with self._fast_path.connection() as connection:
            return page_lookups.related_verdicts(connection, sorted(known))

    def pictures(self, skus: Sequence[str]) -> PictureEvidence:
        """The pictures of these products, and the cuts of the model.

        The statement has read those of products whose words another one of the page has. Others,
        which are alike by a typing error, an identifier or a verdict, were shown before, or have a
        picture that many products show, take another one.
        """
        if self._evidence is None:
            read = (row for row in self._read if row.compared and row.pictures != b"")
            self._evidence = _Evidence(
                {row.sku: row.pictures for row in read},
                calibration.from_json(self._told("calibrations")),
            )
        if missing := sorted(set(skus) - self._evidence.skus):
            with self._fast_path.connection() as connection:
                found = page_lookups.fold_evidence(connection, self.model, missing)
            self._evidence.add(missing, *found)
        return self._evidence.of(self.model)

    def shown_by_more(self, pictures: Collection[int], most: int) -> Mapping[int, Count]:
        """How many products show each of the pictures: the statement tells for those that several
        products of the page show whether it is more, and a small one how many."""
        counts = {
            row.picture_id: row.sharing for row in self._hits.values() if row.sharing is not None
        }
        uncertain = [id_ for id_ in pictures if (known := counts.get(id_)) is None or known > most]
        if not uncertain:
            return {}
        with self._fast_path.connection() as connection:
            return page_lookups.shown_by_more(connection, uncertain, most)

    def details(self, hits: Sequence[tuple[int, int]]) -> Mapping[int, Any]:
        """Rows of details by product id."""
        rows = {hit[0]: self._hits[hit] for hit in hits}
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

    def count_same_words(self, ids: Sequence[int]) -> Mapping[int, int]:
        """How many products have the words of each of these; a small statement for products beyond
        those that a page usually shows."""
        counts = {id_: self._rows[id_].same_words for id_ in ids}
        unknown = [id_ for id_, count in counts.items() if count is None]
        if not unknown:
            return counts
        with self._fast_path.connection() as connection:
            counts |= dict.fromkeys(unknown, 0) | page_lookups.same_words(connection, unknown)
        return counts

    def _told(self, column: str) -> Sequence[Mapping[str, Any]]:
        """The objects in a column of JSON that only a first row has."""
        return (getattr(self._read[0], column) if self._read else None) or ()
