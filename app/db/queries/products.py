"""SQL of `product` and `product_picture`: reading, saving, linking and deleting products."""

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
_SAVED = TYPES | {"identity_key": "text"}

SAVE = """
INSERT INTO product ({fields}) SELECT {values} FROM unnest({arrays}) AS new ({fields}) ORDER BY sku
ON CONFLICT (sku) DO UPDATE SET {overwritten}, updated_at = now()
RETURNING sku, id, xmax <> 0 AS overwritten""".format(
    fields=", ".join(_SAVED),
    values=", ".join(_SAVED).replace("attributes", "attributes::jsonb"),
    # b (binary): quoting and parsing arrays as text takes longer than writing the rows.
    arrays=", ".join(f"CAST(%({name})b AS {type_}[])" for name, type_ in _SAVED.items()),
    overwritten=", ".join(f"{name} = excluded.{name}" for name in _SAVED if name != "sku"),
)

PRODUCT_PICTURES = """
SELECT pic.width, pic.height, pic.thumbnail, pp.uri
FROM product_picture AS pp JOIN picture AS pic ON pic.id = pp.picture_id
WHERE pp.product_id = :product ORDER BY pp.position, pic.id"""

MAX_COUNTED = 1000
"""Products with one identity key are counted up to this number, and one more."""

COUNT_SAME_WORDS = f"""(
        SELECT count(*) FROM (
            SELECT FROM product AS o
            WHERE o.identity_key = {{product}}.identity_key AND {{product}}.identity_key <> ''
            LIMIT {MAX_COUNTED + 1}) AS few)"""
"""How many products have the identity key of a `product`, itself included; 0 without words, and
MAX_COUNTED + 1 stands for all greater numbers."""

_fields = attrgetter(*TYPES)


@dataclass(frozen=True, slots=True)
class StoredProduct:
    """A stored product with its pictures in order."""

    id: int
    product: Product
    pictures: tuple[PictureRef, ...]


@dataclass(frozen=True, slots=True)
class SavedProduct:
    """The id of a saved product, and whether it existed before."""

    id: int
    overwritten: bool


@dataclass(frozen=True, slots=True)
class SameWords:
    """The first products with one identity key, and how many have it; MAX_COUNTED + 1 stands for
    all greater numbers."""

    products: tuple[Product, ...]
    count: int


def by_sku(connection: Connection, skus: Sequence[str]) -> dict[str, StoredProduct]:
    """The stored products with these skus, by sku."""
    with open_pipeline(connection) as pipeline:
        stored = by_sku_in(pipeline, skus)
    return stored()


def by_sku_in(pipeline: Pipeline, skus: Sequence[str]) -> Deferred[dict[str, StoredProduct]]:
    """`by_sku` as a statement of a pipeline."""
    rows = pipeline.send(
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
    """Rows of the uri and the thumbnail of a product's picture, by product id.

    `hits` are pairs of product id and picture id.
    """
    rows = connection.execute(
        text(
            """SELECT product_id AS id, pp.uri, pic.thumbnail
            FROM unnest(CAST(:products AS bigint[]), CAST(:pictures AS bigint[]))
                AS hit (product_id, picture_id)
            JOIN product_picture AS pp USING (product_id, picture_id)
            JOIN picture AS pic ON pic.id = hit.picture_id"""
        ),
        {"products": [hit[0] for hit in hits], "pictures": [hit[1] for hit in hits]},
    )
    return {row.id: row for row in rows}


def by_id(connection: Connection, ids: Sequence[int]) -> dict[int, Product]:
    """The products with these ids, by id."""
    rows = connection.exec_driver_sql(
        f"SELECT id, {FIELDS} FROM product WHERE id = ANY(CAST(%(ids)s AS bigint[]))",
        {"ids": list(ids)},
    )
    return {row.id: product_from_row(row) for row in rows}


def pictures_of(connection: Connection, ids: Sequence[int]) -> tuple[int, ...]:
    """The pictures (ids) of the products with these ids."""
    sql = """SELECT DISTINCT picture_id FROM product_picture
        WHERE product_id = ANY(CAST(%(ids)s AS bigint[]))"""
    return tuple(connection.exec_driver_sql(sql, {"ids": list(ids)}).scalars())


def with_same_words(
    connection: Connection, keys: Sequence[str], limit: int
) -> dict[str, SameWords]:
    """Up to `limit` products with each identity key that several products have, by key."""
    rows = connection.exec_driver_sql(
        f"""SELECT listed.key, counted.total, {FIELDS}
        FROM unnest(CAST(%(keys)s AS text[])) AS listed (key)
        CROSS JOIN LATERAL (
            SELECT count(*) AS total FROM (
                SELECT FROM product AS p WHERE p.identity_key = listed.key LIMIT {MAX_COUNTED + 1}
            ) AS few) AS counted
        CROSS JOIN LATERAL (
            SELECT * FROM product AS p WHERE p.identity_key = listed.key ORDER BY p.id LIMIT %(n)s
        ) AS p
        WHERE counted.total > 1 ORDER BY listed.key, p.id""",
        {"keys": list(keys), "n": limit},
    )
    by_key: dict[str, SameWords] = {}
    for row in rows:
        listed = by_key.get(row.key, SameWords((), row.total)).products
        by_key[row.key] = SameWords((*listed, product_from_row(row)), row.total)
    return by_key


def count_same_words(connection: Connection, ids: Sequence[int]) -> dict[int, int]:
    """How many products have the words of each of these (ids), as COUNT_SAME_WORDS."""
    rows = connection.exec_driver_sql(
        f"""SELECT p.id, {COUNT_SAME_WORDS.format(product="p")} AS same_words FROM product AS p
        WHERE p.id = ANY(CAST(%(ids)s AS bigint[]))""",
        {"ids": list(ids)},
    )
    return {row.id: row.same_words for row in rows}


def product_from_row(row: Any) -> Product:
    """The product of a row that has the columns FIELDS."""
    return Product(*_fields(row))


def save(
    pipeline: Pipeline, products: Sequence[Product], identity_keys: Sequence[str]
) -> Deferred[dict[str, SavedProduct]]:
    """Insert or overwrite products, each with its identity key; returns their ids by sku."""
    if not products:
        return dict
    columns: dict[str, list[Any]] = dict(
        zip(TYPES, map(list, zip(*map(_fields, products), strict=True)), strict=True)
    )
    columns["attributes"] = [json.dumps(dict(each)) for each in columns["attributes"]]
    columns["identity_key"] = list(identity_keys)
    rows = pipeline.send(SAVE, columns)
    return lambda: {row.sku: SavedProduct(row.id, row.overwritten) for row in rows()}


def unlink_pictures(connection: Connection, ids: Collection[int]) -> set[int]:
    """Remove all pictures of products (ids); returns the ids of these pictures."""
    sql = """DELETE FROM product_picture WHERE product_id = ANY(CAST(%(ids)b AS bigint[]))
        RETURNING picture_id"""
    return set(connection.exec_driver_sql(sql, {"ids": list(ids)}).scalars())


def link_pictures(pipeline: Pipeline, links: Sequence[tuple[int, int, int, str]]) -> None:
    """Link products to pictures: tuples of product id, picture id, position and uri, all new."""
    columns = [list(column) for column in zip(*links, strict=True)] or [[]] * 4
    names = ("product", "picture", "position", "uri")
    pipeline.send(
        """INSERT INTO product_picture (product_id, picture_id, position, uri)
        SELECT * FROM unnest(CAST(%(product)b AS bigint[]), CAST(%(picture)b AS bigint[]),
            CAST(%(position)b AS integer[]), CAST(%(uri)b AS text[]))""",
        dict(zip(names, columns, strict=True)),
    )


def delete(connection: Connection, ids: Sequence[int]) -> list[int]:
    """Delete products (ids); returns the ids of their pictures."""
    values = {"ids": list(ids)}
    sql = (
        "SELECT DISTINCT picture_id FROM product_picture"
        " WHERE product_id = ANY(CAST(:ids AS bigint[]))"
    )
    pictures = list(connection.execute(text(sql), values).scalars())
    connection.execute(text("DELETE FROM product WHERE id = ANY(CAST(:ids AS bigint[]))"), values)
    return pictures


def ids(connection: Connection, skus: Sequence[str]) -> dict[str, int]:
    """The ids of the stored products with these skus, by sku."""
    rows = connection.execute(
        text("SELECT sku, id FROM product WHERE sku = ANY(CAST(:skus AS text[]))"),
        {"skus": list(skus)},
    )
    return {row.sku: row.id for row in rows}


def categories(connection: Connection, skus: Sequence[str]) -> dict[str, str | None]:
    """The categories of the stored products with these skus, by sku."""
    rows = connection.execute(
        text("SELECT sku, category FROM product WHERE sku = ANY(CAST(:skus AS text[]))"),
        {"skus": list(skus)},
    )
    return {row.sku: row.category for row in rows}


def filtered_skus(connection: Connection, skus: Sequence[str], filters: Filters) -> set[str]:
    """The skus among these whose products pass the filters."""
    where, bound = condition(filters)
    sql = f"SELECT sku FROM product AS p WHERE p.sku = ANY(CAST(%(skus)s AS text[])) AND {where}"
    return set(connection.exec_driver_sql(sql, {"skus": list(skus), **bound}).scalars())


def all_ids(connection: Connection) -> NDArray[np.int64]:
    """The ids of all products in order, shape (n,), int64."""
    sql = "SELECT string_agg(int8send(id), '' ORDER BY id) FROM product"
    packed = connection.exec_driver_sql(sql).scalar_one()
    return np.frombuffer(packed or b"", dtype=">i8").astype(np.int64)


def unknown_attributes(connection: Connection, names: Sequence[str]) -> list[str]:
    """The names among these that no product has as an attribute."""
    sql = """SELECT name FROM unnest(CAST(%(names)s AS text[])) AS name
        WHERE NOT EXISTS (SELECT FROM product WHERE attributes ? name)"""
    return list(connection.exec_driver_sql(sql, {"names": list(names)}).scalars())


def count_picture_links(connection: Connection) -> int:
    """The number of pictures of all products; a shared picture counts once per product."""
    return int(connection.exec_driver_sql("SELECT count(*) FROM product_picture").scalar_one())


def common_categories(connection: Connection, limit: int = 8) -> list[str]:
    """The categories with the most products, the largest first."""
    sql = text(
        "SELECT category FROM product WHERE category IS NOT NULL"
        " GROUP BY category ORDER BY count(*) DESC, category LIMIT :limit"
    )
    return list(connection.execute(sql, {"limit": limit}).scalars())


def count_without_prefix(connection: Connection, prefix: str) -> int:
    """The number of products whose sku does not begin with `prefix`."""
    sql = text("SELECT count(*) FROM product WHERE NOT starts_with(sku, :prefix)")
    return int(connection.execute(sql, {"prefix": prefix}).scalar_one())


def stream(connection: Connection, first: int = 0, count: int | None = None) -> Iterator[Product]:
    """All products, read in batches, so that the driver does not hold all rows in memory.

    With `count` only so many, from number `first` on, in the order of their identity keys.
    """
    streamed = connection.execution_options(yield_per=5000)
    part = "" if count is None else " ORDER BY identity_key, id LIMIT :count OFFSET :first"
    rows = streamed.execute(
        text(f"SELECT {FIELDS} FROM product{part}"), {"count": count, "first": first}
    )
    yield from map(product_from_row, rows)


def count_all(connection: Connection) -> int:
    """The number of products."""
    return int(connection.exec_driver_sql("SELECT count(*) FROM product").scalar_one())


def similar_skus(connection: Connection, sku: str, limit: int = 3) -> list[str]:
    """Up to `limit` skus that begin like this one, to suggest instead of an unknown sku."""
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
    """Products whose identity key was not made by this version of the normaliser: id, key, product.

    Up to `limit` products with ids above `after`. Products whose key is '' because the title has no
    usable words are returned each time.
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
    """Up to `limit` products with ids above `after`, in order: id, key, product."""
    sql = f"""SELECT id, identity_key, {FIELDS} FROM product
        WHERE id > :after ORDER BY id LIMIT :limit"""
    rows = connection.execute(text(sql), {"after": after, "limit": limit})
    return [(row.id, row.identity_key, product_from_row(row)) for row in rows]


def update_identity_keys(connection: Connection, keys: Mapping[int, str]) -> None:
    """Write identity keys by product id. The products did not change, so `updated_at` stays."""
    connection.execute(
        text(
            """UPDATE product AS p SET identity_key = new.key
            FROM unnest(CAST(:ids AS bigint[]), CAST(:keys AS text[])) AS new (id, key)
            WHERE p.id = new.id"""
        ),
        {"ids": list(keys), "keys": list(keys.values())},
    )


def require_id(connection: Connection, sku: str) -> int:
    """The id of a product; raises UnknownProduct, which suggests a few similar skus."""
    product_id = ids(connection, [sku]).get(sku)
    if product_id is None:
        similar = similar_skus(connection, sku)
        message = f"No product of the catalogue has the sku {sku!r}."
        if similar:
            message = f"{message} Did you mean {', '.join(similar)}?"
        raise UnknownProduct(message)
    return product_id


def product_details(connection: Connection, sku: str) -> ProductDetails:
    """A product with its pictures; raises UnknownProduct."""
    product_id = require_id(connection, sku)
    rows = connection.execute(text(PRODUCT_PICTURES), {"product": product_id})
    shown = tuple(
        StoredPicture(row.width, row.height, bytes(row.thumbnail), row.uri) for row in rows
    )
    return ProductDetails(by_id(connection, [product_id])[product_id], shown)
