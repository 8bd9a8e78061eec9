"""SQL of `product` and `product_picture`: what is known of a product and of its pictures."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, text

from app.db.pipeline import Deferred, Pipeline, open_pipeline
from app.db.queries.filter_sql import condition
from app.errors import UnknownProduct
from app.types import Filters, PictureRef, Product, ProductDetails, StoredPicture

FIELDS = "sku, title, brand, category, colour, year, price, currency, attributes"


TYPES = {
    "sku": "text",
    "title": "text",
    "brand": "text",
    "category": "text",
    "colour": "text",
    "year": "integer",
    "price": "numeric",
    "currency": "text",
    "attributes": "text",
}


_WRITTEN = TYPES | {"identity_key": "text"}


SAVE = """
INSERT INTO product ({fields}) SELECT {values} FROM unnest({arrays}) AS new ({fields}) ORDER BY sku
ON CONFLICT (sku) DO UPDATE SET {overwritten}, updated_at = now()
RETURNING sku, id, xmax <> 0 AS overwritten""".format(
    fields=", ".join(_WRITTEN),
    values=", ".join(_WRITTEN).replace("attributes", "attributes::jsonb"),
    # b: as text, the quotes of arrays take longer to make and to read than the rows to write.
    arrays=", ".join(f"CAST(%({name})b AS {type_}[])" for name, type_ in _WRITTEN.items()),
    overwritten=", ".join(f"{name} = excluded.{name}" for name in _WRITTEN if name != "sku"),
)


_fields = attrgetter(*TYPES)


@dataclass(frozen=True, slots=True)
class StoredProduct:
    """A product as the table has it, with its pictures in order."""

    id: int
    product: Product
    pictures: tuple[PictureRef, ...]


@dataclass(frozen=True, slots=True)
class SavedProduct:
    """What a product is stored as, and whether it was there before."""

    id: int
    overwritten: bool


def by_sku(connection: Connection, skus: Sequence[str]) -> dict[str, StoredProduct]:
    """The products that are there, of these skus."""
    with open_pipeline(connection) as trip:
        found = by_sku_in(trip, skus)
    return found()


def by_sku_in(trip: Pipeline, skus: Sequence[str]) -> Deferred[dict[str, StoredProduct]]:
    """The same, on a trip."""
    rows = trip.send(
        f"""SELECT {FIELDS}, p.id, shown.sha256s, shown.uris
        FROM product AS p, LATERAL (
            SELECT array_agg(pic.sha256 ORDER BY pp.position) AS sha256s,
                array_agg(pp.uri ORDER BY pp.position) AS uris
            FROM product_picture AS pp JOIN picture AS pic ON pic.id = pp.picture_id
            WHERE pp.product_id = p.id) AS shown
        WHERE p.sku = ANY(CAST(%(skus)b AS text[]))""",
        {"skus": list(skus)},
    )
    return lambda: {row.sku: _stored(row) for row in rows()}


def details(connection: Connection, hits: Sequence[tuple[int, int]]) -> dict[int, Row[Any]]:
    """For pairs (product id, picture id): the product's fields, the picture's uri and thumbnail."""
    rows = connection.execute(
        text(
            f"""SELECT p.id, {FIELDS}, pp.uri, pic.thumbnail
            FROM unnest(CAST(:products AS bigint[]), CAST(:pictures AS bigint[]))
                AS hit (product_id, picture_id)
            JOIN product AS p ON p.id = hit.product_id
            JOIN product_picture AS pp USING (product_id, picture_id)
            JOIN picture AS pic ON pic.id = hit.picture_id"""
        ),
        {"products": [hit[0] for hit in hits], "pictures": [hit[1] for hit in hits]},
    )
    return {row.id: row for row in rows}


def by_id(connection: Connection, ids: Sequence[int]) -> dict[int, Product]:
    """What is known of these products (id)."""
    rows = connection.exec_driver_sql(
        f"SELECT id, {FIELDS} FROM product WHERE id = ANY(CAST(%(ids)s AS bigint[]))",
        {"ids": list(ids)},
    )
    return {row.id: product_from_row(row) for row in rows}


def product_from_row(row: Any) -> Product:
    """The product in a row that holds FIELDS."""
    return Product(*_fields(row))


def save(
    trip: Pipeline, products: Sequence[Product], identity_keys: Sequence[str]
) -> Deferred[dict[str, SavedProduct]]:
    """Insert or overwrite products, each with its identity key; what they are stored as, by sku."""
    if not products:
        return dict
    columns: dict[str, list[Any]] = dict(
        zip(TYPES, map(list, zip(*map(_fields, products), strict=True)), strict=True)
    )
    columns["attributes"] = [json.dumps(dict(found)) for found in columns["attributes"]]
    columns["identity_key"] = list(identity_keys)
    rows = trip.send(SAVE, columns)
    return lambda: {row.sku: SavedProduct(row.id, row.overwritten) for row in rows()}


def unlink_pictures(connection: Connection, ids: Collection[int]) -> set[int]:
    """Products (id) show no pictures any more; returns those they showed."""
    sql = """DELETE FROM product_picture WHERE product_id = ANY(CAST(%(ids)b AS bigint[]))
        RETURNING picture_id"""
    return set(connection.exec_driver_sql(sql, {"ids": list(ids)}).scalars())


def link_pictures(trip: Pipeline, shown: Sequence[tuple[int, int, int, str]]) -> None:
    """Products (id) show pictures (id) at a position, from a place (uri), and did not before."""
    columns = [list(column) for column in zip(*shown, strict=True)] or [[]] * 4
    names = ("product", "picture", "position", "uri")
    trip.send(
        """INSERT INTO product_picture (product_id, picture_id, position, uri)
        SELECT * FROM unnest(CAST(%(product)b AS bigint[]), CAST(%(picture)b AS bigint[]),
            CAST(%(position)b AS integer[]), CAST(%(uri)b AS text[]))""",
        dict(zip(names, columns, strict=True)),
    )


def delete(connection: Connection, ids: Sequence[int]) -> list[int]:
    """Delete products; returns the ids of the pictures they showed."""
    values = {"ids": list(ids)}
    pictures = connection.execute(
        text(
            "SELECT DISTINCT picture_id FROM product_picture"
            " WHERE product_id = ANY(CAST(:ids AS bigint[]))"
        ),
        values,
    ).scalars()
    found = list(pictures)
    connection.execute(text("DELETE FROM product WHERE id = ANY(CAST(:ids AS bigint[]))"), values)
    return found


def ids(connection: Connection, skus: Sequence[str]) -> dict[str, int]:
    """The ids of the products that are there, of these skus."""
    rows = connection.execute(
        text("SELECT sku, id FROM product WHERE sku = ANY(CAST(:skus AS text[]))"),
        {"skus": list(skus)},
    )
    return {row.sku: row.id for row in rows}


def categories(connection: Connection, skus: Sequence[str]) -> dict[str, str | None]:
    """The categories of the products that are there, of these skus."""
    rows = connection.execute(
        text("SELECT sku, category FROM product WHERE sku = ANY(CAST(:skus AS text[]))"),
        {"skus": list(skus)},
    )
    return {row.sku: row.category for row in rows}


def filtered_skus(connection: Connection, skus: Sequence[str], filters: Filters) -> set[str]:
    """Those of these skus whose product passes the filters."""
    where, bound = condition(filters)
    sql = f"SELECT sku FROM product AS p WHERE p.sku = ANY(CAST(%(skus)s AS text[])) AND {where}"
    return set(connection.exec_driver_sql(sql, {"skus": list(skus), **bound}).scalars())


def all_ids(connection: Connection) -> NDArray[np.int64]:
    """The ids of all products in order, shape (n,), int64."""
    sql = "SELECT string_agg(int8send(id), '' ORDER BY id) FROM product"
    packed = connection.exec_driver_sql(sql).scalar_one()
    return np.frombuffer(packed or b"", dtype=">i8").astype(np.int64)


def unknown_attributes(connection: Connection, names: Sequence[str]) -> list[str]:
    """Those of these names that are a key of no product's attributes."""
    sql = """SELECT name FROM unnest(CAST(%(names)s AS text[])) AS name
        WHERE NOT EXISTS (SELECT FROM product WHERE attributes ? name)"""
    return list(connection.exec_driver_sql(sql, {"names": list(names)}).scalars())


def count_picture_links(connection: Connection) -> int:
    """How many pictures products show, one that several show counted for each."""
    return int(connection.exec_driver_sql("SELECT count(*) FROM product_picture").scalar_one())


def common_categories(connection: Connection, limit: int = 8) -> list[str]:
    """The categories with the most products, the largest first."""
    sql = text(
        "SELECT category FROM product WHERE category IS NOT NULL"
        " GROUP BY category ORDER BY count(*) DESC, category LIMIT :limit"
    )
    return list(connection.execute(sql, {"limit": limit}).scalars())


def count_without_prefix(connection: Connection, prefix: str) -> int:
    """How many products have a sku that does not begin with `prefix`."""
    sql = text("SELECT count(*) FROM product WHERE NOT starts_with(sku, :prefix)")
    return int(connection.execute(sql, {"prefix": prefix}).scalar_one())


def stream(connection: Connection) -> Iterator[Product]:
    """All products, in portions, so that the driver does not hold them twice."""
    streamed = connection.execution_options(yield_per=5000)
    yield from map(product_from_row, streamed.execute(text(f"SELECT {FIELDS} FROM product")))


def similar_skus(connection: Connection, sku: str, limit: int = 3) -> list[str]:
    """A few skus that begin like this one, to offer when it is not there."""
    rows = connection.execute(
        text(
            "SELECT sku FROM product WHERE starts_with(lower(sku), lower(:start))"
            " ORDER BY sku LIMIT :limit"
        ),
        {"start": sku[:4], "limit": limit},
    )
    return list(rows.scalars())


def _stored(row: Row[Any]) -> StoredProduct:
    shown = zip(row.sha256s or (), row.uris or (), strict=True)
    return StoredProduct(row.id, product_from_row(row), tuple(PictureRef(*each) for each in shown))


def outdated_identity_keys(
    connection: Connection, version: str, after: int, limit: int
) -> list[tuple[int, str, Product]]:
    """Up to `limit` products beyond the id `after` whose key is not of `version`: id, key,
    product.

    A key may be '' because the title says nothing; such products come each time.
    """
    rows = connection.execute(
        text(
            f"""SELECT id, identity_key, {FIELDS} FROM product
            WHERE id > :after AND NOT starts_with(identity_key, :version)
                AND (title <> '' OR identity_key <> '')
            ORDER BY id LIMIT :limit"""
        ),
        {"after": after, "version": version, "limit": limit},
    )
    return [(row.id, row.identity_key, product_from_row(row)) for row in rows]


def identity_key_batch(
    connection: Connection, after: int, limit: int
) -> list[tuple[int, str, Product]]:
    """Up to `limit` products beyond the id `after`, in order: id, key, product."""
    sql = f"""SELECT id, identity_key, {FIELDS} FROM product
        WHERE id > :after ORDER BY id LIMIT :limit"""
    rows = connection.execute(text(sql), {"after": after, "limit": limit})
    return [(row.id, row.identity_key, product_from_row(row)) for row in rows]


def update_identity_keys(connection: Connection, keys: Mapping[int, str]) -> None:
    """Write the keys of products, by id. No product changed, so `updated_at` stays."""
    connection.execute(
        text(
            """UPDATE product AS p SET identity_key = new.key
            FROM unnest(CAST(:ids AS bigint[]), CAST(:keys AS text[])) AS new (id, key)
            WHERE p.id = new.id"""
        ),
        {"ids": list(keys), "keys": list(keys.values())},
    )


PRODUCT_PICTURES = """
SELECT pic.width, pic.height, pic.thumbnail, pp.uri
FROM product_picture AS pp JOIN picture AS pic ON pic.id = pp.picture_id
WHERE pp.product_id = :product ORDER BY pp.position, pic.id"""


def require_id(connection: Connection, sku: str) -> int:
    """The id of a product; raises UnknownProduct, which names a few skus that begin like it."""
    found = ids(connection, [sku]).get(sku)
    if found is None:
        near = similar_skus(connection, sku)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise UnknownProduct(f"No product of the catalogue has the sku {sku!r}.{hint}")
    return found


def product_details(connection: Connection, sku: str) -> ProductDetails:
    """What the catalogue holds of a product; raises UnknownProduct."""
    id_ = require_id(connection, sku)
    rows = connection.execute(text(PRODUCT_PICTURES), {"product": id_})
    shown = tuple(
        StoredPicture(row.width, row.height, bytes(row.thumbnail), row.uri) for row in rows
    )
    return ProductDetails(by_id(connection, [id_])[id_], shown)
