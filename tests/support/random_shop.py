"""Random small catalogues in which everything that folds or joins products happens often."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

import numpy as np
import psycopg

from app.bootstrap import App
from app.catalog.batch_write import Batch
from app.catalog.entries import ProductEntry
from app.db.queries import calibration
from app.types import (
    Calibration,
    CutOff,
    Filters,
    PictureData,
    PictureRef,
    Product,
    Query,
    Vector,
)

PRODUCTS = 40
CLUSTERS = 12
SCALES = (0.0, 0.02, 0.3, 0.45)
"""Distances of the pictures of a cluster to its centre, relative to their length: the nearest show
one article, the farthest do not."""

WORDS = ("marria", "corano", "selunta", "brivoto")
CATEGORIES = ("blazer", "Blazers", "shirt", None, "")
COLOURS = ("red", "Red", "blue", None, None)
GTINS = ("4006381333931", "9780306406157", "96385074")


def picture_vector(number: int, dim: int) -> Vector:
    """The vector of a picture: near those of the other pictures of its cluster."""
    centre, own = (
        np.random.default_rng(seed).normal(size=dim) for seed in (number // 4, 1000 + number)
    )
    row = centre / np.linalg.norm(centre) + SCALES[number % 4] * own / np.linalg.norm(own)
    return np.asarray(row / np.linalg.norm(row), np.float32)


def refill(app: App, sql: psycopg.Connection, random: Random) -> list[str]:
    """Replace the whole catalogue by a random one with a build; gives its pictured skus."""
    sql.execute("DELETE FROM product")
    sql.execute("DELETE FROM duplicate_verdict")
    products = [_product(random, number) for number in range(PRODUCTS)]
    built = random.randrange(PRODUCTS // 2, PRODUCTS + 1)
    _write(app, random, products[:built])
    app.indexer.rebuild()
    _write(app, random, products[built:])
    changed = random.sample(products[:built], random.randrange(4))
    _write(app, random, [replace(each, title=_title(random)) for each in changed])
    skus = [each.sku for each in products]
    for sku in random.sample(skus, random.randrange(3)):  # the identity key stays as it was
        sql.execute("UPDATE product SET title = %s WHERE sku = %s", [_title(random), sku])
    gone = random.sample(skus, random.randrange(4))
    app.catalog.delete(gone)
    _decide(sql, random, [*skus, "NOWHERE1", "NOWHERE2"])
    _calibrate(app, random)
    pictured = "SELECT sku FROM product WHERE id IN (SELECT product_id FROM product_picture)"
    return [sku for (sku,) in sql.execute(f"{pictured} ORDER BY sku")]


def random_query(app: App, random: Random, skus: Sequence[str]) -> Query:
    """A query by vector or sku with random options."""
    near = picture_vector(random.randrange(4 * CLUSTERS), app.encoder().dim)
    sku = random.choice(skus) if random.random() < 0.4 else None
    return Query(
        sku=sku,
        vector=near if sku is None else None,
        model_id=1 if sku is None else None,
        k=random.choice((1, 2, 3, 5, 12)),
        fold=random.random() < 0.75,
        near_query=random.choice((None, None, None, 1e-3, 0.1)),
        near_match=random.choice((None, None, None, 1e-3, 0.1)),
        min_similarity=random.choice((None, None, None, -1.0, 0.8)),
        filters=Filters({"category": "blazer"}) if random.random() < 0.2 else Filters(),
    )  # fmt: skip


def _product(random: Random, number: int) -> Product:
    attributes: dict[str, str] = {}
    for name, values, share in (
        ("gtin", GTINS, 0.1), ("mpn", ("AB1234", "AB1235"), 0.1), ("item_group_id", "XY", 0.1),
    ):  # fmt: skip
        if random.random() < share:
            attributes[name] = random.choice(values)
    return Product(
        f"P{number:02}", _title(random), random.choice(("Kestrel", "kestrel", None)),
        random.choice(CATEGORIES), random.choice(COLOURS), random.choice((None, 2020, 2021)),
        attributes=attributes,
    )  # fmt: skip


def _title(random: Random) -> str:
    word = random.choice(WORDS)
    if random.random() < 0.05:
        word = word[:3] + word[2:]  # a typing error
    return random.choice(("", word, f"{word} blazer", f"Kestrel {word} red", f"{word} 2021", "red"))


def _write(app: App, random: Random, products: Sequence[Product]) -> None:
    shown = {each.sku: _pictures(random) for each in products}
    numbers = sorted({number for own in shown.values() for number in own})
    sha = {number: hashlib.sha256(b"%d" % number).digest() for number in numbers}
    dim = app.encoder().dim
    entries = [
        ProductEntry(each, tuple(PictureRef(sha[n], f"{n}.png") for n in shown[each.sku]))
        for each in products
    ]
    stored = {sha[n]: PictureData(sha[n], 8, 8, b"%d" % n) for n in numbers}
    vectors: Mapping[bytes, Vector] = {sha[n]: picture_vector(n, dim) for n in numbers}
    app.catalog.write(Batch(entries, stored, vectors), app.catalog.model())


def _pictures(random: Random) -> list[int]:
    """The pictures of a product: some share one, a few have none, picture 0 is a placeholder."""
    if random.random() < 0.15:
        return [0] if random.random() < 0.7 else []
    cluster = random.randrange(CLUSTERS)
    return random.sample(range(4 * cluster, 4 * cluster + 4), random.choice((1, 1, 1, 2, 3)))


def _decide(sql: psycopg.Connection, random: Random, skus: Sequence[str]) -> None:
    """Verdicts, most on products of one wording, some on deleted ones, some contradictory."""
    key_of: dict[str, str] = dict(sql.execute("SELECT sku, identity_key FROM product").fetchall())
    for _ in range(random.randrange(12)):
        one = random.choice(skus)
        alike = [sku for sku in skus if sku != one and key_of.get(sku) == key_of.get(one)]
        other = random.choice(alike if alike and random.random() < 0.7 else skus)
        if one != other:
            sql.execute(
                "INSERT INTO duplicate_verdict (sku_a, sku_b, same, decided_by)"
                " VALUES (%s, %s, %s, 'a test') ON CONFLICT DO NOTHING",
                [*sorted((one, other)), random.random() < 0.6],
            )


def _calibrate(app: App, random: Random) -> None:
    rows = [
        Calibration(category, CutOff(None, 0, 0), CutOff(cut, 5, 5), CutOff(None, 0, 0))
        for category in (None, "blazer", "Blazers", "shirt")
        if random.random() < 0.5 and (cut := random.choice((0.01, 0.05, 0.2)))
    ]
    with app.engine.begin() as connection:
        calibration.replace(connection, 1, rows)
