"""Deletes products in a transaction that has the write lock."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from app.catalog.history import whole
from app.db import notifications
from app.db.queries import history, pictures, products


def delete(connection: Connection, skus: Sequence[str], run_id: int | None) -> int:
    """Delete the products with these skus, and pictures that no other product shows.

    The run keeps them in its history. Returns how many products there were.
    """
    if run_id is None:
        ids = list(products.ids(connection, skus).values())
    else:
        stored = products.by_sku(connection, skus)
        ids = [product.id for product in stored.values()]
        former = {sku: whole(product) for sku, product in stored.items()}
        history.record_deletes(connection, run_id, former)
    shown = products.delete(connection, ids)
    pictures.sweep(connection, shown, run_id)
    notifications.notify(connection)
    return len(ids)
