"""Generated products, and the COPY BINARY data that writes the same rows directly."""

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

from app.catalog.batch_write import Batch
from app.catalog.entries import ProductEntry
from app.db import copy
from app.duplicates.normalization import identity_key
from app.types import Model, PictureData, PictureRef, Product
from bench.data.vectors import generate_vectors

KINDS = ("lamp", "chair", "table", "sofa", "mug", "kettle", "plate", "bowl", "rug", "shelf")
COLOURS = ("red", "green", "blue", "black", "white", "oak", "walnut", "steel", "grey", "brass")
THUMBNAIL_BYTES = 7000
"""Size of a thumbnail, about that of a JPEG of 240 pixels."""

COLUMNS = {
    "product": "id sku title brand category colour year price currency attributes identity_key",
    "picture": "id sha256 width height thumbnail",
    "product_picture": "product_id picture_id position uri",
    "embedding": "model_id picture_id vec",
}
RESERVE_IDS = psql.SQL(
    "SELECT setval(name, nextval(name) + %(n)s) - %(n)s"
    " FROM pg_get_serial_sequence(%(table)s, 'id') AS name"
)
CopyPayloads = Mapping[str, bytes]
"""The COPY data of each table, by table name."""


class ProductGenerator:
    """Generates batches of new products, each with its own picture. SKUs never repeat."""

    @staticmethod
    @cache
    def shared() -> ProductGenerator:
        """One generator per process, so that all writers use different SKUs."""
        return ProductGenerator()

    def __init__(self) -> None:
        self._numbers = count()
        self._random = np.random.default_rng(1)

    def batch(self, size: int) -> Batch:
        numbers = [next(self._numbers) for _ in range(size)]
        pictures = [self._picture(number) for number in numbers]
        vectors = generate_vectors(size, numbers[0] + 10**6)
        entries = [
            ProductEntry(self._product(number), (PictureRef(data.sha256, f"photos/{number}.jpg"),))
            for number, data in zip(numbers, pictures, strict=True)
        ]
        hashes = [data.sha256 for data in pictures]
        return Batch(
            entries,
            dict(zip(hashes, pictures, strict=True)),
            dict(zip(hashes, vectors, strict=True)),
        )

    def _picture(self, number: int) -> PictureData:
        digest = sha256(f"picture {number}".encode()).digest()
        return PictureData(digest, 1000, 1000, self._random.bytes(THUMBNAIL_BYTES))

    def _product(self, number: int) -> Product:
        kind, *modifiers = self._random.choice(KINDS, 3)
        return Product(
            sku=f"W{number:08}",
            title=f"{modifiers[0]} {kind} {modifiers[1]} {number}",
            brand=f"brand {number % 100}",
            category=str(kind),
            colour=COLOURS[number % len(COLOURS)],
            year=2000 + number % 25,
            price=Decimal(number % 4000) / 4,
            currency="EUR",
            attributes={"material": COLOURS[number % 7], "width": number % 200},
        )


class CopyWriter:
    """Writes the rows of a batch with plain COPY BINARY, on a given connection."""

    def __init__(self, connection: psycopg.Connection, model: Model) -> None:
        self._connection = connection
        self._model = model
        for table in list(COLUMNS)[:3]:
            connection.execute(
                psql.SQL("CREATE TEMP TABLE {} (LIKE {} INCLUDING DEFAULTS)").format(
                    psql.Identifier(f"packed_{table}"), psql.Identifier("public", table)
                )
            )
        connection.commit()

    def pack(self, batch: Batch) -> CopyPayloads:
        """The COPY data of a batch, with ids reserved from the sequences."""
        n = len(batch.entries)
        product_ids, picture_ids = self._ids("product", n), self._ids("picture", n)
        rows: dict[str, Sequence[tuple[object, ...]]] = {
            "product": [
                _product_row(*pair) for pair in zip(product_ids, batch.entries, strict=True)
            ],
            "picture": [
                (id_, data.sha256, data.width, data.height, data.thumbnail)
                for id_, data in zip(picture_ids, batch.pictures.values(), strict=True)
            ],
            "product_picture": [
                (product, picture, 0, entry.pictures[0].uri)
                for product, picture, entry in zip(
                    product_ids, picture_ids, batch.entries, strict=True
                )
            ],
        }
        payloads = {table: self._encode_rows(table, values) for table, values in rows.items()}
        vectors = np.stack(list(batch.vectors.values()))
        return payloads | {
            "embedding": copy.pack(copy.make_rows(self._model, np.array(picture_ids), vectors))
        }

    def write(self, payloads: CopyPayloads) -> None:
        """Write all tables in one transaction."""
        for table, data in payloads.items():
            self.copy(table, data)
        self._connection.commit()

    def commit(self) -> None:
        self._connection.commit()

    def copy(self, table: str, data: bytes) -> None:
        """Write the rows of one table, without a commit."""
        columns = psql.SQL(", ").join(map(psql.Identifier, COLUMNS[table].split()))
        into = psql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)")
        statement = into.format(psql.Identifier("public", table), columns)
        with self._connection.cursor().copy(statement) as copying:
            copying.write(data)

    def _ids(self, table: str, n: int) -> list[int]:
        row = self._connection.execute(RESERVE_IDS, {"table": table, "n": n}).fetchone()
        assert row is not None
        return list(range(row[0], row[0] + n))

    def _encode_rows(self, table: str, rows: Sequence[tuple[object, ...]]) -> bytes:
        """Encode rows with a temporary table, so that the server produces the binary format."""
        name, fields = f"packed_{table}", COLUMNS[table].split()
        columns = psql.SQL(", ").join(map(psql.Identifier, fields))
        copy_in = psql.SQL("COPY {} ({}) FROM STDIN").format(psql.Identifier(name), columns)
        with self._connection.cursor().copy(copy_in) as copying:
            for row in rows:
                copying.write_row(row)
        copy_out = psql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT BINARY)")
        with self._connection.cursor().copy(copy_out.format(columns, psql.Identifier(name))) as out:
            data = b"".join(map(bytes, out))
        self._connection.execute(psql.SQL("TRUNCATE {}").format(psql.Identifier(name)))
        self._connection.commit()
        return data


def _product_row(id_: int, entry: ProductEntry) -> tuple[object, ...]:
    product = entry.product
    values = [getattr(product, name) for name in COLUMNS["product"].split()[1:-2]]
    return (id_, *values, json.dumps(dict(product.attributes)), identity_key(product))


def picture_ids_of(embeddings: bytes, model: Model) -> list[int]:
    """The picture ids of packed embeddings."""
    row = np.dtype([("before", "V14"), ("id", ">i8"), ("after", f"V{8 + 2 * model.dim}")])
    rows = np.frombuffer(embeddings[len(copy.HEADER) : -len(copy.TRAILER)], dtype=row)
    return [int(id_) for id_ in rows["id"]]
