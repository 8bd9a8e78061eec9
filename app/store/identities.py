"""SQL of `product.identity_key`: which keys another version of the normaliser made."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, text

from app.identity import VERSION
from app.store.products import FIELDS, product_of
from app.types import Product


def outdated(connection: Connection, after: int, limit: int) -> list[tuple[int, str, Product]]:
    """Up to `limit` products beyond the id `after` whose key needs a look: id, key, product.

    A key may be '' because the title says nothing; such products come each time.
    """
    rows = connection.execute(
        text(
            f"""SELECT id, identity_key, {FIELDS} FROM product
            WHERE id > :after AND NOT starts_with(identity_key, :version)
                AND (title <> '' OR identity_key <> '')
            ORDER BY id LIMIT :limit"""
        ),
        {"after": after, "version": VERSION, "limit": limit},
    )
    return [(row.id, row.identity_key, product_of(row)) for row in rows]


def portion(connection: Connection, after: int, limit: int) -> list[tuple[int, str, Product]]:
    """Up to `limit` products beyond the id `after`, in order: id, key, product."""
    sql = f"""SELECT id, identity_key, {FIELDS} FROM product
        WHERE id > :after ORDER BY id LIMIT :limit"""
    rows = connection.execute(text(sql), {"after": after, "limit": limit})
    return [(row.id, row.identity_key, product_of(row)) for row in rows]


def renew(connection: Connection, keys: Mapping[int, str]) -> None:
    """Write the keys of products, by id. No product changed, so `updated_at` stays."""
    connection.execute(
        text(
            """UPDATE product AS p SET identity_key = new.key
            FROM unnest(CAST(:ids AS bigint[]), CAST(:keys AS text[])) AS new (id, key)
            WHERE p.id = new.id"""
        ),
        {"ids": list(keys), "keys": list(keys.values())},
    )
