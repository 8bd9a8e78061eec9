"""What has no look-alike, and the nearest product of another brand: as computed from all pairs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product as product_of
from pathlib import Path

import numpy as np
import psycopg
import pytest

from app.bootstrap import App
from app.types import Product
from support.analysts import catalogue, login
from support.shop import add_products

Vectors = dict[str, list[np.ndarray]]


@pytest.fixture(scope="module")
def shop(server_home: Path, template: str) -> Iterator[App]:
    with catalogue(server_home, template) as app:
        add_products(app, [
            (Product("TWO", "Sol", "Kestrel", "lamp"), [1, 2]),
            (Product("SHARED", "Sol", "Solano", "mug"), [2]),
            (Product("NO-BRAND", "Sol", None, "lamp"), [1]),
            (Product("ONLY", "Sol", "Nobody", "vase"), [900]),
        ])  # fmt: skip
        add_products(app, [(Product("BARE", "Sol", "Kestrel", "lamp"), [])])
        yield app


@pytest.fixture(scope="module")
def analyst(shop: App) -> Iterator[psycopg.Connection]:
    with login(shop) as url, psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def stored(shop: App) -> Iterator[tuple[dict[str, tuple[str | None, str | None]], Vectors]]:
    """Brand and category of each product, and the vectors of its pictures, by sku."""
    with psycopg.connect(shop.settings.database_url or "") as connection:
        names = {
            sku: (brand, category)
            for sku, brand, category in connection.execute(
                "SELECT sku, brand, category FROM product"
            )
        }
        vectors: Vectors = {}
        for sku, vector in connection.execute(
            "SELECT sku, vec::vector::real[] FROM product AS p"
            " JOIN product_picture ON product_id = p.id JOIN embedding USING (picture_id)"
        ):
            vectors.setdefault(sku, []).append(np.array(vector) / np.linalg.norm(vector))
        yield names, vectors


def distance(first: list[np.ndarray], second: list[np.ndarray]) -> float:
    return min(1 - float(a @ b) for a, b in product_of(first, second))


@pytest.mark.parametrize("most", [0.0, 0.05, 0.3, 1.9])
@pytest.mark.parametrize("category", [None, "lamp"])
def test_products_without_a_look_alike_are_those_of_all_pairs(
    analyst: psycopg.Connection,
    stored: tuple[dict[str, tuple[str | None, str | None]], Vectors],
    most: float,
    category: str | None,
) -> None:
    names, vectors = stored
    expected = sorted(
        sku
        for sku in vectors
        if category in (None, names[sku][1])
        and not any(
            distance(vectors[sku], vectors[other]) <= most + 1e-6
            for other in vectors if other != sku
        )
    )  # fmt: skip
    chosen = None if category is None else [category]
    sql = "SELECT sku FROM analytics.without_look_alike(%s, category => %s)"
    # Equal pictures are at a distance of about 1e-8.
    assert [row[0] for row in analyst.execute(sql, [most + 1e-6, chosen])] == expected


@pytest.mark.parametrize("brand", [None, ["Kestrel"], ["Nobody"]])
def test_the_nearest_of_another_brand_is_that_of_all_pairs(
    analyst: psycopg.Connection,
    stored: tuple[dict[str, tuple[str | None, str | None]], Vectors],
    brand: list[str] | None,
) -> None:
    names, vectors = stored
    sql = "SELECT sku, other, other_brand, distance, similarity"
    found = list(analyst.execute(f"{sql} FROM analytics.nearest_of_another_brand(%s)", [brand]))
    asked = {
        sku for sku in vectors
        if names[sku][0] is not None and (brand is None or names[sku][0] in brand)
    }  # fmt: skip
    assert {row[0] for row in found} == asked
    assert [row[3] for row in found] == sorted(row[3] for row in found)
    for sku, other, other_brand, apart, similarity in found:
        assert other_brand == names[other][0] != names[sku][0]
        nearest = min(
            distance(vectors[sku], vectors[each])
            for each in vectors if names[each][0] not in (None, names[sku][0])
        )  # fmt: skip
        assert apart == pytest.approx(nearest, abs=1e-6)
        assert apart == pytest.approx(distance(vectors[sku], vectors[other]), abs=1e-6)
        assert similarity == pytest.approx(1 - apart)
