"""CatalogService: writes products with their pictures and embeddings, and owns the transaction.

Writers hold `LockKey.CATALOG_WRITE` for one short transaction, so that a picture is never deleted
while another writer links it, and writers cannot deadlock.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice

from sqlalchemy import Engine

from app.catalog import batch_delete, batch_write, undo
from app.catalog.batch_write import Batch, BatchChange, PlannedWrite
from app.catalog.entries import ProductEntry
from app.catalog.history import DEFAULT_LIMITS, HistoryLimits
from app.catalog.undo import UndoProgress, UndoReport
from app.db import locks
from app.db.engine import check_schema, snapshot
from app.db.pipeline import open_pipeline
from app.db.queries import ingest_runs, listing, models, pictures, products
from app.db.queries.listing import ListOrder, ProductList
from app.db.queries.nearest import filter_clause
from app.db.queries.products import StoredProduct
from app.db.text import check_text
from app.errors import UnknownPicture, UnknownProduct
from app.types import Filters, KeptRun, Model, ProductDetails

__all__ = ["CatalogService", "ListOrder", "ProductList"]

MAX_NAMED = 10
"""Deleted skus that the record of a deletion names."""


class CatalogService:
    """Adds, changes and deletes products; each call is one transaction.

    `history` are the limits of what is kept to undo runs. Where another process is in charge of a
    run, `during` is the id of that run: once it has ended, `write` raises RunEnded, so that what is
    late cannot overwrite what came after it.
    """

    def __init__(
        self, engine: Engine, history: HistoryLimits = DEFAULT_LIMITS, during: int | None = None
    ) -> None:
        self._engine = engine
        self.history = history
        self._during = during

    def model(self) -> Model:
        """The active model. Raises NoModel before `lookalike init`, SchemaMismatch."""
        with self._engine.connect() as connection:
            check_schema(connection)
            return models.require_active(connection)

    def product(self, sku: str) -> ProductDetails:
        """A product with all its data and pictures, from one snapshot.

        Raises BadInput for a sku that PostgreSQL cannot store, UnknownProduct and
        DatabaseUnavailable.
        """
        check_text("sku", sku)
        with snapshot(self._engine) as connection:
            return products.product_details(connection, sku)

    def browse(
        self, filters: Filters, order: ListOrder = "newest", *, first: int = 0, count: int = 12
    ) -> ProductList:
        """`count` products that pass the filters, after the `first` ones, in this order.

        Products without a price come last where prices order. Raises BadInput for a filter that
        cannot be applied, SchemaMismatch and DatabaseUnavailable.
        """
        with snapshot(self._engine) as connection:
            check_schema(connection)
            return listing.read(connection, filter_clause(filters), order, first, count)

    def thumbnails(self, skus: Sequence[str]) -> dict[str, bytes]:
        """The thumbnail (JPEG) of the first picture of each of these products, by sku; products
        without a picture are left out."""
        with snapshot(self._engine) as connection:
            return pictures.first_thumbnails(connection, skus)

    def thumbnail(self, sha256: bytes) -> bytes:
        """The thumbnail (JPEG) of the picture with this sha256 (32 bytes).

        Raises UnknownPicture.
        """
        with self._engine.connect() as connection:
            found = pictures.thumbnail(connection, sha256)
        if found is None:
            raise UnknownPicture()
        return found

    def picture_hashes(self, ids: Sequence[int]) -> dict[int, bytes]:
        """The sha256 (32 bytes) of each of these pictures that is stored, by id."""
        with self._engine.connect() as connection:
            return pictures.hashes(connection, ids)

    def stored(self, sku: str) -> StoredProduct:
        """A product with references to its pictures in order. Raises BadInput, UnknownProduct."""
        check_text("sku", sku)
        with self._engine.connect() as connection:
            found = products.by_sku(connection, [sku])
        if sku not in found:
            raise UnknownProduct(f"No product has the sku {sku!r}.")
        return found[sku]

    def models(self) -> list[Model]:
        """The models that new pictures get embeddings under, the active one first.

        Raises NoModel, SchemaMismatch.
        """
        with self._engine.connect() as connection:
            check_schema(connection)
            return [models.require_active(connection), *models.maintained(connection)[1:]]

    def count_without_prefix(self, prefix: str) -> int:
        """How many products have a sku that does not begin with `prefix`."""
        with self._engine.connect() as connection:
            return products.count_without_prefix(connection, prefix)

    def ingest_sources(self) -> list[str]:
        """The sources (files and folders) of all ingests, the latest first, each once."""
        with self._engine.connect() as connection:
            return ingest_runs.sources(connection)

    def known(self, sha256s: Sequence[bytes], model: Model) -> dict[bytes, bool]:
        """Those of the pictures that are stored; True if the model has an embedding of it."""
        with self._engine.connect() as connection:
            return pictures.embedded_by_sha256(connection, sha256s, model.id)

    def plan(self, entries: Sequence[ProductEntry]) -> list[PlannedWrite]:
        """What writing these entries would change now. Raises BadInput for a repeated sku."""
        with self._engine.connect() as connection:
            stored = products.by_sku(connection, [entry.product.sku for entry in entries])
        return batch_write.plan(entries, stored)

    def write(
        self, batch: Batch, model: Model, run_id: int | None = None
    ) -> dict[str, BatchChange]:
        """Write all entries of a batch or none; returns the change of each by sku.

        An entry changes the fields that it gives; the other fields of a stored product stay.
        Entries that change nothing are not written. Afterwards every picture of the entries
        has an embedding, and pictures that no product shows any more are deleted. Raises BadInput
        for a sku that is in the batch twice, PicturesMissing if the batch lacks the bytes or vector
        of a picture that is not stored (any more), and ModelsChanged if `model` is not kept up to
        date any more, or if the batch lacks vectors for another model that is. The changes are kept
        in the history of the run `run_id`, if there is one.
        """
        with locks.transaction(self._engine) as connection:
            return batch_write.write(connection, batch, model, run_id, self._during)

    def delete(
        self, skus: Sequence[str], *, missing_ok: bool = False, run_id: int | None = None
    ) -> int:
        """Delete products and pictures that no other product shows; returns how many products.

        They can be brought back by undoing the run `run_id`, or one that is recorded for this call.
        All or none: raises UnknownProduct with the unknown skus, unless `missing_ok`. Raises
        BadInput for a sku that PostgreSQL cannot store.
        """
        for sku in skus:
            check_text("sku", sku)
        with locks.transaction(self._engine) as connection:
            with open_pipeline(connection) as pipeline:
                locks.begin_write(pipeline)
            check_schema(connection)
            known = products.ids(connection, skus)
            unknown = [sku for sku in skus if sku not in known]
            if unknown and not missing_ok:
                raise UnknownProduct(
                    f"Nothing was deleted: no product has the sku {', '.join(unknown)}."
                )
            if run_id is None and known and self.history.days:
                run_id = ingest_runs.record_delete(connection, _named(known), len(known))
            return batch_delete.delete(connection, list(known), run_id)

    def undo(self, run_id: int, progress: UndoProgress = lambda report: None) -> UndoReport:
        """Undo a run, except what was changed since.

        Raises BadInput for a run that is unknown, still running, or not kept any more.
        """
        return undo.undo(self._engine, run_id, self.history, progress)

    def undoable_runs(self, limit: int) -> list[KeptRun]:
        """The last runs that can be undone, the newest first."""
        return undo.undoable_runs(self._engine, limit)


def _named(skus: Collection[str]) -> str:
    """The skus for the record of a run, shortened."""
    names = ", ".join(islice(skus, MAX_NAMED))
    return names if len(skus) <= MAX_NAMED else f"{names} and {len(skus) - MAX_NAMED:,} more"
