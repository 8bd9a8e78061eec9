"""What filling a page reads: hits, products, verdicts, pictures. Two sources give the same page.

`SnapshotData` reads each of them with a statement of its own, in one snapshot. `StatementData`
(`statement_data.py`) has them from the statement that found the hits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection

from app.config import Settings
from app.db.queries import embeddings, full_text, products, shared_pictures, verdicts
from app.db.queries.products import SameWords
from app.duplicates.evidence import PictureEvidence
from app.duplicates.picture_loading import picture_loader
from app.index.file_store import IndexFiles
from app.search import planner
from app.search.retrieval import NearestRequest, RetrievalRequest, RetrievalResult, best_hits
from app.types import Count, Hit, Model, Product, Vector, Verdict


class PageData(Protocol):
    """Reads what a page is made from."""

    def retrieve(self, request: NearestRequest) -> RetrievalResult:
        """The nearest products."""

    def earlier(self, request: NearestRequest, skus: Sequence[str]) -> list[Hit]:
        """The products of earlier pages that still exist and have a picture, each by its picture
        nearest to the query; by any picture, without a distance, if nothing is compared with
        them."""

    def pictures_of(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The pictures (ids) of the product asked with and those of earlier pages (ids)."""

    def products(self, ids: Sequence[int]) -> Mapping[int, Product]:
        """Products by id."""

    def vectors(self, pictures: Sequence[int]) -> Mapping[int, Vector]:
        """The embeddings of pictures (ids), shape (dim,), float32, of those that have one."""

    def verdicts(self, skus: Sequence[str]) -> list[Verdict]:
        """All verdicts that concern these skus, as `verdicts.related`."""

    def pictures(self, skus: Sequence[str]) -> PictureEvidence:
        """The pictures of products, to tell products with the same words apart."""

    def shown_by_more(self, pictures: Collection[int], most: int) -> Mapping[int, Count]:
        """How many products show each of the pictures (ids) that more than `most` show."""

    def details(self, hits: Sequence[tuple[int, int]]) -> Mapping[int, Any]:
        """Rows as of `products.details`, by product id, for pairs of product and picture id."""

    def count_same_words(self, ids: Sequence[int]) -> Mapping[int, int]:
        """How many products have the words of each of these (ids), as
        `products.COUNT_SAME_WORDS`."""


class SnapshotData:
    """Reads in the snapshot of a connection, under a model."""

    def __init__(
        self, connection: Connection, model: Model, files: IndexFiles, settings: Settings
    ) -> None:
        self._connection = connection
        self._model = model
        self._files = files
        self._settings = settings

    def retrieve(self, request: NearestRequest) -> RetrievalResult:
        """The nearest products, by the path that the planner chooses."""
        assert isinstance(request, RetrievalRequest)
        return planner.find(request, self._files, self._settings)

    def earlier(self, request: NearestRequest, skus: Sequence[str]) -> list[Hit]:
        """The products of earlier pages by their nearest pictures."""
        ids = list(products.ids(self._connection, skus).values())
        return self.nearest_hits(request, ids) if ids else []

    def nearest_hits(self, request: NearestRequest, ids: Sequence[int]) -> list[Hit]:
        """Each of these products (ids) by its picture nearest to a vector of the request."""
        return best_hits(
            full_text.nearest_hits(self._connection, self._model, each.vector, ids)
            for each in request.alternatives
        )

    def pictures_of(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The pictures of the product asked with and those of earlier pages."""
        return products.pictures_of(self._connection, ids)

    def products(self, ids: Sequence[int]) -> Mapping[int, Product]:
        """Products by id."""
        return products.by_id(self._connection, ids)

    def vectors(self, pictures: Sequence[int]) -> Mapping[int, Vector]:
        """Embeddings by picture id."""
        return embeddings.vectors(self._connection, self._model, pictures)

    def verdicts(self, skus: Sequence[str]) -> list[Verdict]:
        """The verdicts that concern these skus."""
        return verdicts.related(self._connection, skus)

    def pictures(self, skus: Sequence[str]) -> PictureEvidence:
        """The pictures of products, and the cuts of the model."""
        return picture_loader(self._connection, self._model)(skus)

    def shown_by_more(self, pictures: Collection[int], most: int) -> Mapping[int, Count]:
        """How many products show each of the pictures."""
        return shared_pictures.shown_by_more(self._connection, list(pictures), most)

    def details(self, hits: Sequence[tuple[int, int]]) -> Mapping[int, Any]:
        """Rows of details by product id."""
        return products.details(self._connection, hits)

    def count_same_words(self, ids: Sequence[int]) -> Mapping[int, int]:
        """How many products have the words of each of these."""
        return products.count_same_words(self._connection, ids)

    def same_words(self, keys: Sequence[str], limit: int) -> Mapping[str, SameWords]:
        """Up to `limit` products with each identity key that several have."""
        return products.with_same_words(self._connection, keys, limit)
