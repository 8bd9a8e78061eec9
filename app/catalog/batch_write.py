"""Writes a batch of products, pictures and embeddings in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection

from app.catalog.entries import ProductEntry, changed_columns, merged
from app.catalog.history import former
from app.db import locks, notifications
from app.db.pipeline import Deferred, Pipeline, open_pipeline
from app.db.queries import embeddings, models, pictures, products
from app.db.queries import history as history_rows
from app.duplicates.normalization import identity_key
from app.errors import BadInput, LookalikeError, ModelMismatch, NoModel
from app.types import Model, PictureData, Product, Vector

ROWS_PER_STATEMENT = 128
"""Rows per statement: few, so that the server starts early while the next rows are prepared."""

IdsBySha256 = Mapping[bytes, int]
"""Picture ids by sha256."""


class PicturesMissing(LookalikeError):
    """Pictures that were stored a moment ago were deleted; send their bytes again."""


class ModelsChanged(ModelMismatch):
    """The models that are kept up to date have changed; encode the pictures again."""


class RunEnded(LookalikeError):
    """The run that these rows belong to has ended, so they were not written; start it again."""


class BatchChange(StrEnum):
    """The effect of writing a product."""

    ADDED = "added"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries to write together, with the pictures and vectors that are not stored yet.

    `pictures` and `vectors` are by sha256; a vector has shape (dim,), float32, length 1.
    `other_vectors` has, by model id, the vectors of new pictures under each other maintained model.
    """

    entries: Sequence[ProductEntry]
    pictures: Mapping[bytes, PictureData] = field(default_factory=dict)
    vectors: Mapping[bytes, Vector] = field(default_factory=dict)
    other_vectors: Mapping[int, Mapping[bytes, Vector]] = field(default_factory=dict)


def write(
    connection: Connection,
    batch: Batch,
    model: Model,
    run_id: int | None,
    during: int | None = None,
) -> dict[str, BatchChange]:
    """Take the write lock, and write a batch in this transaction; see `CatalogService.write`."""
    with open_pipeline(connection) as pipeline:
        locks.begin_write(pipeline)
        alive = None if during is None else locks.is_run_alive(pipeline, during)
        maintained = models.maintained_in(pipeline)
        stored = products.by_sku_in(pipeline, [entry.product.sku for entry in batch.entries])
    if alive is not None and not alive():
        raise RunEnded()
    maintained_models = _check_maintained(maintained(), model)
    writes = plan(batch.entries, stored())

    def embed(new: IdsBySha256, ids: IdsBySha256) -> None:
        _embed(connection, batch, new, ids, model)
        for other in maintained_models:
            if other.id != model.id:
                _embed_other(connection, batch, new, ids, other)

    apply(connection, batch, writes, embed, run_id)
    return {each.entry.product.sku: each.change for each in writes}


def apply(
    connection: Connection,
    batch: Batch,
    writes: Sequence[PlannedWrite],
    embed: Callable[[IdsBySha256, IdsBySha256], None],
    run_id: int | None,
) -> None:
    """Write what is planned, in a transaction with the write lock, and record it for the run.

    `embed` stores the embeddings; it gets the ids of the new pictures, and of all that are linked.
    """
    written = [each for each in writes if each.change is not BatchChange.UNCHANGED]
    new, ids = _save(connection, batch, written)
    picture_ids = _picture_ids(connection, batch, written, new)
    embed(new, picture_ids)
    _link(connection, written, ids, picture_ids, run_id)
    if run_id is not None and written:
        history_rows.record_writes(connection, run_id, _former(written))


def _former(written: Sequence[PlannedWrite]) -> dict[str, dict[str, Any] | None]:
    return {
        each.entry.product.sku: None if each.stored is None else former(each.stored, each.entry)
        for each in written
    }


def _check_maintained(maintained: list[Model], model: Model) -> list[Model]:
    """The models that are kept up to date. Raises ModelsChanged if `model` is not one of them."""
    if not maintained:
        raise NoModel()
    if model.id not in [each.id for each in maintained]:
        raise ModelsChanged(f"{model.name} is not kept up to date any more; start again.")
    return maintained


@dataclass(frozen=True, slots=True)
class PlannedWrite:
    """An entry merged with the stored product, and the columns in which they differ."""

    entry: ProductEntry
    stored: products.StoredProduct | None
    columns: tuple[str, ...] = ()

    @property
    def change(self) -> BatchChange:
        if self.stored is None:
            return BatchChange.ADDED
        return BatchChange.UPDATED if self.columns else BatchChange.UNCHANGED

    @property
    def links_pictures(self) -> bool:
        """Whether the pictures of the product are not linked yet as they are in the entry."""
        return self.stored is None or self.stored.pictures != self.entry.pictures


def plan(
    entries: Sequence[ProductEntry], stored: Mapping[str, products.StoredProduct]
) -> list[PlannedWrite]:
    """What each entry writes. Raises BadInput for a sku that is in the entries twice."""
    seen: set[str] = set()
    for entry in entries:
        sku = entry.product.sku
        if sku in seen:
            raise BadInput(f"{sku} is in the batch twice; write it once, or in two batches.")
        seen.add(sku)
    return [_planned(entry, stored.get(entry.product.sku)) for entry in entries]


def _planned(entry: ProductEntry, stored: products.StoredProduct | None) -> PlannedWrite:
    if stored is None:
        return PlannedWrite(entry, None)
    whole = merged(entry, stored.product, stored.pictures)
    return PlannedWrite(whole, stored, changed_columns(stored.product, stored.pictures, whole))


def _save(
    connection: Connection, batch: Batch, written: Sequence[PlannedWrite]
) -> tuple[dict[bytes, int], dict[str, products.SavedProduct]]:
    """Store the new pictures and the products; returns picture ids by sha256, and saved products by
    sku."""
    with open_pipeline(connection) as pipeline:
        parts = list(_send(pipeline, batch, written))
    new = {sha256: id_ for picture_ids, _ in parts for sha256, id_ in picture_ids().items()}
    return new, {
        sku: saved for _, saved_products in parts for sku, saved in saved_products().items()
    }


def _send(
    pipeline: Pipeline, batch: Batch, written: Sequence[PlannedWrite]
) -> Iterator[tuple[Deferred[dict[bytes, int]], Deferred[dict[str, products.SavedProduct]]]]:
    """Send pictures and products alternately; the server writes while the next are prepared."""
    sha256s = sorted(_referenced(batch.entries) & batch.pictures.keys())
    new_pictures = [batch.pictures[sha256] for sha256 in sha256s]
    new_products = sorted((each.entry.product for each in written), key=attrgetter("sku"))
    for part in _parts(max(len(new_pictures), len(new_products))):
        yield (
            pictures.save(pipeline, new_pictures[part]),
            _send_products(pipeline, new_products[part]),
        )


def _send_products(
    pipeline: Pipeline, part: Sequence[Product]
) -> Deferred[dict[str, products.SavedProduct]]:
    """Send products; their identity keys are computed while the server executes what was sent."""
    return products.save(pipeline, part, [identity_key(product) for product in part])


def _parts(rows: int) -> Iterator[slice]:
    return (slice(at, at + ROWS_PER_STATEMENT) for at in range(0, rows, ROWS_PER_STATEMENT))


def _picture_ids(
    connection: Connection, batch: Batch, written: Sequence[PlannedWrite], new: IdsBySha256
) -> IdsBySha256:
    """Ids of all pictures that will be linked. Not of others: reading an id locks its row, which is
    a write."""
    linked = _referenced(each.entry for each in written if each.links_pictures)
    before = sorted((linked | batch.vectors.keys()) - new.keys())
    return {**new, **(pictures.ids(connection, before) if before else {})}


def _link(
    connection: Connection,
    written: Sequence[PlannedWrite],
    ids: Mapping[str, products.SavedProduct],
    picture_ids: IdsBySha256,
    run_id: int | None,
) -> None:
    """Link the written products to their pictures, notify workers, and delete pictures that no
    product shows any more."""
    linked = [each.entry for each in written if each.links_pictures]
    saved = [ids[entry.product.sku] for entry in linked]
    overwritten = [product.id for product in saved if product.overwritten]
    before = products.unlink_pictures(connection, overwritten) if overwritten else set()
    shown = [
        (product.id, picture_ids[ref.sha256], position, ref.uri)
        for entry, product in zip(linked, saved, strict=True)
        for position, ref in enumerate(entry.pictures)
    ]
    with open_pipeline(connection) as pipeline:
        if shown:
            products.link_pictures(pipeline, shown)
        notifications.notify_in(pipeline)
    pictures.sweep(connection, sorted(before - {picture for _, picture, _, _ in shown}), run_id)


def _referenced(entries: Iterable[ProductEntry]) -> set[bytes]:
    return {ref.sha256 for entry in entries for ref in entry.pictures}


def _embed(
    connection: Connection, batch: Batch, new: IdsBySha256, ids: IdsBySha256, model: Model
) -> None:
    """Store the vectors of the batch. Raises PicturesMissing if a picture has no embedding then."""
    _store(connection, batch.vectors, new, ids, model)
    unverified = sorted(_referenced(batch.entries) - (new.keys() & batch.vectors.keys()))
    if unverified:
        embedded = pictures.embedded_by_sha256(connection, unverified, model.id)
        if not all(embedded.get(sha256) for sha256 in unverified):
            raise PicturesMissing()


def _embed_other(
    connection: Connection, batch: Batch, new: IdsBySha256, ids: IdsBySha256, model: Model
) -> None:
    """Store the vectors under another model, which must cover all new pictures of the batch."""
    vectors = batch.other_vectors.get(model.id, {})
    if not batch.vectors.keys() <= vectors.keys():
        raise ModelsChanged(f"{model.name} is kept up to date too now; start again.")
    _store(connection, vectors, new, ids, model)


def _store(
    connection: Connection,
    vectors: Mapping[bytes, Vector],
    new: IdsBySha256,
    ids: IdsBySha256,
    model: Model,
) -> None:
    by_id = {ids[sha256]: vector for sha256, vector in vectors.items() if sha256 in ids}
    embeddings.store(connection, model, by_id, new.values())
