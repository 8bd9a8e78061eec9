"""Facets of the catalogue, and one product with all its data."""

from __future__ import annotations

from decimal import Decimal

import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.db.queries.facets import FacetRange
from app.errors import BadInput, DatabaseUnavailable, SchemaMismatch, UnknownProduct
from app.search.facets import MAX_VALUES, NEWEST
from support.shop import add, numbered


def test_values_come_with_their_counts_most_frequent_first(app: App) -> None:
    add(app, numbered(3), brand="Kestrel", category="lamp")
    add(app, numbered(2, first=3), brand="Alder", category="lamp")
    add(app, numbered(2, first=5), brand="Solano")
    facets = app.facets.read()
    assert facets.values["brand"].counts == (("Kestrel", 3), ("Alder", 2), ("Solano", 2))
    assert facets.values["category"].counts == (("lamp", 5),)


def test_products_without_a_value_count_for_none(app: App) -> None:
    add(app, numbered(1), brand=None)
    add(app, numbered(1, first=1), brand="")
    assert app.facets.read().values["brand"].counts == ()


def test_bounds_are_those_of_the_catalogue(app: App) -> None:
    add(app, numbered(1), year=2019, price=Decimal("12.50"))
    add(app, numbered(1, first=1), year=2024, price=Decimal("3"))
    add(app, numbered(1, first=2))
    expected = FacetRange(3, 2019, 2024, Decimal("3"), Decimal("12.50"))
    assert app.facets.read().bounds == expected


def test_an_empty_catalogue_has_no_bounds(app: App) -> None:
    facets = app.facets.read()
    assert facets.bounds == FacetRange(0, None, None, None, None)
    assert facets.newest == ()


def test_rare_values_are_left_out_and_counted(app: App, sql: psycopg.Connection) -> None:
    sql.execute(
        "INSERT INTO product (sku, brand) SELECT 'S' || n, 'brand ' || n"
        " FROM generate_series(1, %s) AS n", [MAX_VALUES + 7],
    )  # fmt: skip
    sql.execute("INSERT INTO product (sku, brand) VALUES ('twice', 'brand 506')")
    brands = app.facets.read().values["brand"]
    assert (len(brands.counts), brands.left_out) == (MAX_VALUES, 7)
    assert brands.counts[0] == ("brand 506", 2)


def test_the_newest_are_those_that_came_last_and_have_a_picture(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, numbered(NEWEST + 2))
    sql.execute("INSERT INTO product (sku) VALUES ('without')")
    newest = app.facets.read().newest
    assert [product.sku for product, _ in newest] == [f"P{n:04}" for n in range(9, 1, -1)]
    assert newest[0][1].uri == "9.png" and newest[0][1].thumbnail[:2] == b"\xff\xd8"


def test_without_tables_the_error_says_what_to_do(settings: Settings, empty_url: str) -> None:
    bare = Settings(home=settings.home, database_url=empty_url)
    with App(bare) as app, pytest.raises(SchemaMismatch, match="lookalike init"):
        app.facets.read()


def test_without_a_database_the_error_says_so(settings: Settings) -> None:
    gone = Settings(home=settings.home, database_url="postgresql://localhost:9/none")
    with App(gone) as app, pytest.raises(DatabaseUnavailable):
        app.facets.read()


def test_a_product_comes_with_its_pictures_in_order(app: App) -> None:
    add(app, {"A": [5, 2, 9]}, brand="Kestrel", attributes={"material": "wool"})
    found = app.catalog.product("A")
    assert (found.product.brand, found.product.attributes) == ("Kestrel", {"material": "wool"})
    assert [picture.uri for picture in found.pictures] == ["5.png", "2.png", "9.png"]
    assert {(picture.width, picture.height) for picture in found.pictures} == {(32, 32)}


def test_a_product_without_pictures_comes_without(app: App, sql: psycopg.Connection) -> None:
    sql.execute("INSERT INTO product (sku) VALUES ('bare')")
    assert app.catalog.product("bare").pictures == ()


def test_an_unknown_sku_is_refused_with_similar_ones_by_the_catalogue(app: App) -> None:
    add(app, numbered(1))
    with pytest.raises(UnknownProduct, match="Did you mean P0000"):
        app.catalog.product("P0009")


def test_a_sku_that_cannot_be_stored_is_refused(app: App) -> None:
    with pytest.raises(BadInput, match="NUL"):
        app.catalog.product("P\0")
