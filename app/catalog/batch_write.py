"""Batches: what a source says of products and pictures, and what becomes of it in the tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter

from sqlalchemy import Connection

from app.db import locks, notifications
from app.db.pipeline import Deferred, Pipeline, open_pipeline
from app.db.queries import embeddings, models, pictures, products
from app.duplicates.normalization import identity_key
from app.errors import BadInput, LookalikeError, ModelMismatch, NoModel
from app.types import Model, PictureData, PictureRef, Product, Vector

AT_ONCE = 128
"""Pictures, and products, of one statement: few enough that the server is soon at work."""

PictureIds = Mapping[bytes, int]
"""Pictures (id) by sha256."""


class PicturesMissing(LookalikeError):
    """Pictures that were stored a moment ago are gone; bring their bytes again."""


class ModelsChanged(ModelMismatch):
    """Other models than a moment ago are kept up to date; encode the pictures again."""


class BatchChange(StrEnum):
    """What writing a product did."""

    ADDED = "added"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class ProductEntry:
    """A product as a source has it, with the pictures it shows, in order."""

    product: Product
    pictures: tuple[PictureRef, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries to write together, with the pictures and vectors that are not stored yet.

    `pictures` and `vectors` go by sha256; a vector is unit, shape (dim,), float32. `beside` has the
    vectors of new pictures under each other model (id) that is kept up to date.
    """

    entries: Sequence[ProductEntry]
    pictures: Mapping[bytes, PictureData] = field(default_factory=dict)
    vectors: Mapping[bytes, Vector] = field(default_factory=dict)
    beside: Mapping[int, Mapping[bytes, Vector]] = field(default_factory=dict)


def write(connection: Connection, batch: Batch, model: Model) -> dict[str, BatchChange]:
    """Wait for the writer's turn, and write a batch in this transaction; see
    `CatalogService.write`."""
    with open_pipeline(connection) as trip:
        locks.begin_write(trip)
        maintained = models.maintained_in(trip)
        stored = products.by_sku_in(trip, [entry.product.sku for entry in batch.entries])
    kept = _kept(maintained(), model)
    changes = _changes(batch.entries, stored())
    written = [e for e in batch.entries if changes[e.product.sku] is not BatchChange.UNCHANGED]
    new, ids = _save(connection, batch, written)
    picture_ids = _linked(connection, batch, written, new)
    _embed(connection, batch, new, picture_ids, model)
    for other in kept:
        if other.id != model.id:
            _embed_beside(connection, batch, new, picture_ids, other)
    _show(connection, written, ids, picture_ids)
    return changes


def _kept(maintained: list[Model], model: Model) -> list[Model]:
    """The models that are kept up to date, of which this must be one."""
    if not maintained:
        raise NoModel()
    if model.id not in [each.id for each in maintained]:
        raise ModelsChanged(f"{model.name} is not kept up to date any more; start again.")
    return maintained


def _changes(
    entries: Sequence[ProductEntry], stored: Mapping[str, products.StoredProduct]
) -> dict[str, BatchChange]:
    found: dict[str, BatchChange] = {}
    for entry in entries:
        sku = entry.product.sku
        if sku in found:
            raise BadInput(f"{sku} is in the batch twice; write it once, or in two batches.")
        found[sku] = _change(entry, stored.get(sku))
    return found


def _change(entry: ProductEntry, stored: products.StoredProduct | None) -> BatchChange:
    if stored is None:
        return BatchChange.ADDED
    same = stored.product == entry.product and stored.pictures == entry.pictures
    return BatchChange.UNCHANGED if same else BatchChange.UPDATED


def _save(
    connection: Connection, batch: Batch, written: Sequence[ProductEntry]
) -> tuple[dict[bytes, int], dict[str, products.SavedProduct]]:
    """Store the new pictures that entries show, and the products; returns the pictures, and what
    the products are stored as, by sku."""
    with open_pipeline(connection) as trip:
        answers = list(_sent(trip, batch, written))
    new = {sha256: id_ for found, _ in answers for sha256, id_ in found().items()}
    return new, {sku: saved for _, found in answers for sku, saved in found().items()}


def _sent(
    trip: Pipeline, batch: Batch, written: Sequence[ProductEntry]
) -> Iterator[tuple[Deferred[dict[bytes, int]], Deferred[dict[str, products.SavedProduct]]]]:
    """Some pictures and some products in turn: while the server writes them, the next are made
    ready."""
    wanted = sorted(_shown(batch.entries) & batch.pictures.keys())
    brought = [batch.pictures[sha256] for sha256 in wanted]
    ready = sorted((entry.product for entry in written), key=attrgetter("sku"))
    for some in _parts(max(len(brought), len(ready))):
        yield pictures.save(trip, brought[some]), _products(trip, ready[some])


def _products(
    trip: Pipeline, some: Sequence[Product]
) -> Deferred[dict[str, products.SavedProduct]]:
    """Send products; their identity keys are computed while the server executes what was sent."""
    return products.save(trip, some, [identity_key(product) for product in some])


def _parts(rows: int) -> Iterator[slice]:
    return (slice(at, at + AT_ONCE) for at in range(0, rows, AT_ONCE))


def _linked(
    connection: Connection, batch: Batch, written: Sequence[ProductEntry], new: PictureIds
) -> PictureIds:
    """All pictures that rows will refer to; to lock a row is to write to it, so not those of
    entries that are left alone."""
    before = sorted((_shown(written) | batch.vectors.keys()) - new.keys())
    return {**new, **(pictures.ids(connection, before) if before else {})}


def _show(
    connection: Connection,
    written: Sequence[ProductEntry],
    ids: Mapping[str, products.SavedProduct],
    picture_ids: PictureIds,
) -> None:
    """Link the products that were written to their pictures, tell workers that the catalogue
    changed, and sweep the pictures that were shown before and are no more."""
    overwritten = [stored.id for stored in ids.values() if stored.overwritten]
    before = products.unlink_pictures(connection, overwritten) if overwritten else set()
    shown = [
        (ids[entry.product.sku].id, picture_ids[ref.sha256], position, ref.uri)
        for entry in written
        for position, ref in enumerate(entry.pictures)
    ]
    with open_pipeline(connection) as trip:
        if shown:
            products.link_pictures(trip, shown)
        notifications.notify_in(trip)
    pictures.sweep(connection, sorted(before - {picture for _, picture, _, _ in shown}))


def _shown(entries: Iterable[ProductEntry]) -> set[bytes]:
    return {ref.sha256 for entry in entries for ref in entry.pictures}


def _embed(
    connection: Connection, batch: Batch, new: PictureIds, ids: PictureIds, model: Model
) -> None:
    """Store the vectors of the batch, after which no picture of it may be without one."""
    _store(connection, batch.vectors, new, ids, model)
    unsure = sorted(_shown(batch.entries) - (new.keys() & batch.vectors.keys()))
    if unsure:
        embedded = pictures.embedded_by_sha256(connection, unsure, model.id)
        if not all(embedded.get(sha256) for sha256 in unsure):
            raise PicturesMissing()


def _embed_beside(
    connection: Connection, batch: Batch, new: PictureIds, ids: PictureIds, model: Model
) -> None:
    """Store what the batch brings under another model, which must be all that is new in it."""
    vectors = batch.beside.get(model.id, {})
    if not batch.vectors.keys() <= vectors.keys():
        raise ModelsChanged(f"{model.name} is kept up to date too now; start again.")
    _store(connection, vectors, new, ids, model)


def _store(
    connection: Connection,
    vectors: Mapping[bytes, Vector],
    new: PictureIds,
    ids: PictureIds,
    model: Model,
) -> None:
    found = {ids[sha256]: vector for sha256, vector in vectors.items() if sha256 in ids}
    embeddings.store(connection, model, found, new.values())
