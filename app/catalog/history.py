"""What is kept of a run so that it can be undone: the former state of products, and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection

from app.catalog.entries import FIELDS, ProductEntry
from app.db import locks
from app.db.queries import history
from app.db.queries.products import StoredProduct
from app.types import PictureRef, Product

FORGET_ROWS = 10_000
"""Rows that are deleted in one statement."""

MB = 1_000_000

_PICTURES = "pictures"
_ATTRIBUTES = "attributes"


@dataclass(frozen=True, slots=True)
class HistoryLimits:
    """How long and how much is kept: days (0: nothing is), and megabytes of all runs together."""

    days: float = 30.0
    megabytes: int = 1000

    @property
    def max_bytes(self) -> int:
        return self.megabytes * MB


DEFAULT_LIMITS = HistoryLimits()


def trim(connection: Connection, limits: HistoryLimits) -> None:
    """Delete what is kept of runs beyond the limits, the oldest first.

    A run that is alive or being undone keeps it. The connection must be in autocommit mode; what an
    interruption leaves is deleted by the next call.
    """
    for run_id in history.expired_runs(connection, limits.days, limits.max_bytes):
        with locks.ingest_run(connection, run_id) as over:
            if over:
                forget(connection, run_id)


def forget(connection: Connection, run_id: int) -> None:
    """Delete what is kept of a run, in several transactions (autocommit).

    It is marked first: an undo must not find a part of it.
    """
    history.mark_forgotten(connection, run_id)
    for table in history.TABLES:
        while history.forget(connection, run_id, table, FORGET_ROWS):
            pass


def former(stored: StoredProduct, after: ProductEntry) -> dict[str, Any]:
    """The fields in which a stored product differs from its next state, as they are now, for JSON.

    Attributes and pictures are each kept as a whole.
    """
    now, product, next_ = whole(stored), stored.product, after.product
    names = (*FIELDS, _ATTRIBUTES)
    same = {name for name in names if getattr(product, name) == getattr(next_, name)}
    if stored.pictures == after.pictures:
        same.add(_PICTURES)
    return {name: value for name, value in now.items() if name not in same}


def whole(stored: StoredProduct) -> dict[str, Any]:
    """All fields, attributes and pictures of a stored product, for JSON."""
    product = stored.product
    fields = {name: getattr(product, name) for name in FIELDS}
    fields["price"] = None if product.price is None else str(product.price)
    return {
        **fields,
        _ATTRIBUTES: dict(product.attributes),
        _PICTURES: [[ref.sha256.hex(), ref.uri] for ref in stored.pictures],
    }


def restored(sku: str, before: Mapping[str, Any], stored: StoredProduct | None) -> ProductEntry:
    """The product with the kept fields as they were; the others as they are stored."""
    product = Product(sku) if stored is None else stored.product
    shown = () if stored is None else stored.pictures
    fields = {name: before[name] for name in (*FIELDS, _ATTRIBUTES) if name in before}
    if fields.get("price") is not None:
        fields["price"] = Decimal(fields["price"])
    if _PICTURES in before:
        shown = tuple(PictureRef(bytes.fromhex(sha), uri) for sha, uri in before[_PICTURES])
    return ProductEntry(replace(product, **fields), shown)


def is_as_before(stored: StoredProduct, before: Mapping[str, Any]) -> bool:
    """Whether the product has the kept values now."""
    now = whole(stored)
    return all(now[name] == value for name, value in before.items() if name in now)
