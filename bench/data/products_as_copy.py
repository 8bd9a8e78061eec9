"""Drawn products, and the bytes by which COPY BINARY writes what becomes of them in the tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cache
from hashlib import sha256
from itertools import count

import numpy as np
import psycopg
from psycopg import sql as psql

from app.catalog.batch_write import Batch, ProductEntry
from app.db import copy
from app.duplicates.normalization import identity_key
from app.types import Model, PictureData, PictureRef, Product
from bench.data.catalogue import drawn

KINDS = ("lamp", "chair", "table", "sofa", "mug", "kettle", "plate", "bowl", "rug", "shelf")
COLOURS = ("red", "green", "blue", "black", "white", "oak", "walnut", "steel", "grey", "brass")
THUMBNAIL = 7000
"""Bytes of a thumbnail, about what one of 240 pixels takes."""

FIELDS = {
    "product": "id sku title brand category colour year price currency attributes identity_key",
    "picture": "id sha256 width height thumbnail",
    "product_picture": "product_id picture_id position uri",
    "embedding": "model_id picture_id vec",
}
IDS = psql.SQL(
    "SELECT setval(name, nextval(name) + %(n)s) - %(n)s"
    " FROM pg_get_serial_sequence(%(table)s, 'id') AS name"
)
Packed = Mapping[str, bytes]
"""By table, what COPY sends."""


class Drawn:
    """Batches of products that no batch before had, each with a picture of its own."""

    @staticmethod
    @cache
    def shared() -> Drawn:
        return Drawn()

    def __init__(self) -> None:
        self._numbers = count()
        self._random = np.random.default_rng(1)

    def batch(self, size: int) -> Batch:
        numbers = [next(self._numbers) for _ in range(size)]
        shown = [self._picture(number) for number in numbers]
        vectors = drawn(size, numbers[0] + 10**6)
        entries = [
            ProductEntry(self._product(number), (PictureRef(data.sha256, f"photos/{number}.jpg"),))
            for number, data in zip(numbers, shown, strict=True)
        ]
        hashes = [data.sha256 for data in shown]
        return Batch(
            entries,
            dict(zip(hashes, shown, strict=True)),
            dict(zip(hashes, vectors, strict=True)),
        )

    def _picture(self, number: int) -> PictureData:
        digest = sha256(f"picture {number}".encode()).digest()
        return PictureData(digest, 1000, 1000, self._random.bytes(THUMBNAIL))

    def _product(self, number: int) -> Product:
        kind, *looks = self._random.choice(KINDS, 3)
        return Product(
            sku=f"W{number:08}",
            title=f"{looks[0]} {kind} {looks[1]} {number}",
            brand=f"brand {number % 100}",
            category=str(kind),
            colour=COLOURS[number % len(COLOURS)],
            year=2000 + number % 25,
            price=Decimal(number % 4000) / 4,
            currency="EUR",
            attributes={"material": COLOURS[number % 7], "width": number % 200},
        )


class Bare:
    """COPY BINARY of what a batch becomes in the tables, on a connection of its own."""

    def __init__(self, connection: psycopg.Connection, model: Model) -> None:
        self._connection = connection
        self._model = model
        for table in list(FIELDS)[:3]:
            connection.execute(
                psql.SQL("CREATE TEMP TABLE {} (LIKE {} INCLUDING DEFAULTS)").format(
                    psql.Identifier(f"packed_{table}"), psql.Identifier("public", table)
                )
            )
        connection.commit()

    def packed(self, batch: Batch) -> Packed:
        """The bytes that COPY sends, under ids that are taken for them."""
        n = len(batch.entries)
        products, shown = self._ids("product", n), self._ids("picture", n)
        rows: dict[str, Sequence[tuple[object, ...]]] = {
            "product": [_product(*pair) for pair in zip(products, batch.entries, strict=True)],
            "picture": [
                (id_, data.sha256, data.width, data.height, data.thumbnail)
                for id_, data in zip(shown, batch.pictures.values(), strict=True)
            ],
            "product_picture": [
                (product, picture, 0, entry.pictures[0].uri)
                for product, picture, entry in zip(products, shown, batch.entries, strict=True)
            ],
        }
        found = {table: self._pack(table, wanted) for table, wanted in rows.items()}
        vectors = np.stack(list(batch.vectors.values()))
        return found | {
            "embedding": copy.pack(copy.make_rows(self._model, np.array(shown), vectors))
        }

    def write(self, packed: Packed) -> None:
        """One transaction."""
        for table, data in packed.items():
            self.copy(table, data)
        self._connection.commit()

    def commit(self) -> None:
        self._connection.commit()

    def copy(self, table: str, data: bytes) -> None:
        """The rows of one table."""
        columns = psql.SQL(", ").join(map(psql.Identifier, FIELDS[table].split()))
        into = psql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)")
        statement = into.format(psql.Identifier("public", table), columns)
        with self._connection.cursor().copy(statement) as copying:
            copying.write(data)

    def _ids(self, table: str, n: int) -> list[int]:
        row = self._connection.execute(IDS, {"table": table, "n": n}).fetchone()
        assert row is not None
        return list(range(row[0], row[0] + n))

    def _pack(self, table: str, rows: Sequence[tuple[object, ...]]) -> bytes:
        """Through a temporary table, so that the server itself says what is binary for it."""
        name, fields = f"packed_{table}", FIELDS[table].split()
        columns = psql.SQL(", ").join(map(psql.Identifier, fields))
        filled = psql.SQL("COPY {} ({}) FROM STDIN").format(psql.Identifier(name), columns)
        with self._connection.cursor().copy(filled) as copying:
            for row in rows:
                copying.write_row(row)
        taken = psql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT BINARY)")
        with self._connection.cursor().copy(taken.format(columns, psql.Identifier(name))) as out:
            data = b"".join(map(bytes, out))
        self._connection.execute(psql.SQL("TRUNCATE {}").format(psql.Identifier(name)))
        self._connection.commit()
        return data


def _product(id_: int, entry: ProductEntry) -> tuple[object, ...]:
    product = entry.product
    named = [getattr(product, name) for name in FIELDS["product"].split()[1:-2]]
    return (id_, *named, json.dumps(dict(product.attributes)), identity_key(product))


def copied_ids(embeddings: bytes, model: Model) -> list[int]:
    """The picture ids of packed embeddings."""
    row = np.dtype([("before", "V14"), ("id", ">i8"), ("after", f"V{8 + 2 * model.dim}")])
    found = np.frombuffer(embeddings[len(copy.HEADER) : -len(copy.TRAILER)], dtype=row)
    return [int(id_) for id_ in found["id"]]
