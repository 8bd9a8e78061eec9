"""Facets of the catalogue, and one product with all its data."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from decimal import Decimal

import psycopg
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.bootstrap import App
from app.config import Settings
from app.db.queries.facets import FacetRange
from app.errors import BadInput, DatabaseUnavailable, SchemaMismatch, UnknownProduct
from app.search.facets import MAX_VALUES, Facets
from app.search.filters import parse
from app.search.vector_cache import VectorCache
from app.types import Query
from support.colours import choose_colours, photo
from support.copies import copied_for
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


def test_values_of_a_large_catalogue_are_those_of_a_sample(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql.execute("INSERT INTO product (sku, brand, year, price) SELECT 'L' || n,"
                " CASE n % 4 WHEN 0 THEN 'B' ELSE 'A' END, 1990 + n % 10, n"
                " FROM generate_series(1, 2000) AS n")  # fmt: skip
    sql.execute("ANALYZE product")
    whole = app.facets.read()
    assert whole.depth is None and whole.values["brand"].counts == (("A", 1500), ("B", 500))
    monkeypatch.setattr("app.db.queries.catalog_stats.COUNTED_ROWS", 1999)
    monkeypatch.setattr("app.search.facets.WORDS_DEPTH", 400)
    part = app.facets.read()
    assert part.bounds == whole.bounds == FacetRange(2000, 1990, 1999, Decimal(1), Decimal(2000))
    assert part.depth == 400 and part.values["brand"].counts == (("A", 300), ("B", 100))


def test_an_empty_catalogue_has_no_bounds(app: App) -> None:
    facets = app.facets.read()
    assert facets.bounds == FacetRange(0, None, None, None, None)


def test_rare_values_are_left_out_and_counted(app: App, sql: psycopg.Connection) -> None:
    sql.execute(
        "INSERT INTO product (sku, brand) SELECT 'S' || n, 'brand ' || n"
        " FROM generate_series(1, %s) AS n", [MAX_VALUES + 7],
    )  # fmt: skip
    sql.execute("INSERT INTO product (sku, brand) VALUES ('twice', 'brand 506')")
    brands = app.facets.read().values["brand"]
    assert (len(brands.counts), brands.left_out) == (MAX_VALUES, 7)
    assert brands.counts[0] == ("brand 506", 2)


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


# The facets of a query


FIELDS = (
    "UPDATE product SET brand = CASE WHEN id % 4 = 1 THEN 'Alder' ELSE 'Kestrel' END,"
    " colour = ('{red,blue,green,grey}'::text[])[1 + id % 4], year = 2015 + id % 5,"
    " price = id, title = CASE WHEN id % 2 = 0 THEN 'lamp' ELSE 'chair' END,"
    " attributes = jsonb_build_object('packaged', id % 2, 'code', 'c' || id,"
    "   'tags', CASE WHEN id % 2 = 0 THEN '[\"a\", \"b\"]'::jsonb ELSE '\"a\"'::jsonb END)"
    "   || CASE WHEN id % 8 = 0 THEN '{\"rare\": \"yes\"}'::jsonb ELSE '{}' END"
)


def fill(app: App) -> None:
    """Forty products in two brands, four colours and five years, with attributes."""
    add(app, numbered(40))
    with psycopg.connect(str(app.settings.database_url), autocommit=True) as sql:
        sql.execute(FIELDS)
    app.indexer.rebuild()


database_url = copied_for("shop", fill)


@pytest.fixture
def shop(app: App) -> App:
    return app


def plain(sql: psycopg.Connection, column: str, where: str) -> dict[str, int]:
    """The values of a column with their numbers of products, by plain SQL."""
    rows = sql.execute(
        f"SELECT {column}, count(*) FROM product AS p WHERE {where} GROUP BY 1".encode()
    ).fetchall()
    return {str(value): count for value, count in rows}


def counts(facets: Facets, name: str) -> dict[str, int]:
    return dict(facets.values[name].counts)


PARTS = {
    "brand=Alder": "brand = 'Alder'",
    "brand=Kestrel": "brand = 'Kestrel'",
    "colour=red": "colour = 'red'",
    "colour=blue": "colour = 'blue'",
    "packaged=1": "attributes ->> 'packaged' = '1'",
    "year>=2017": "year >= 2017",
    "price=..25": "price <= 25",
}


@pytest.mark.parametrize("words", [None, "lamp"])
def test_each_facet_counts_under_the_other_filters(
    shop: App, sql: psycopg.Connection, words: str | None
) -> None:
    """Compared with plain SQL, for any choice of filters."""
    base = {} if words is None else {"words": "title = 'lamp'"}

    @hypothesis_settings(max_examples=25, deadline=None)
    @given(st.sets(st.sampled_from(sorted(PARTS)), max_size=4))
    def check(chosen: set[str]) -> None:
        query = Query(
            picture=None if words else photo(1000), words=words, filters=parse(sorted(chosen))
        )
        facets = shop.facets.of_query(query)
        by_name: dict[str, list[str]] = {}
        for each in sorted(chosen):
            by_name.setdefault(re.split("[=<>]", each)[0], []).append(PARTS[each])
        own = {name: f"({' OR '.join(parts)})" for name, parts in by_name.items()} | base

        def where(ignored: str) -> str:
            return " AND ".join(["true", *(sql for name, sql in own.items() if name != ignored)])

        columns = {"brand": "brand", "colour": "colour", "packaged": "attributes ->> 'packaged'"}
        for name, column in columns.items():
            expected = plain(sql, column, where(name))
            shown = counts(facets, name) if name in facets.values else {}
            assert shown == expected
        years = sql.execute(
            f"SELECT min(year), max(year) FROM product WHERE {where('year')}".encode()
        ).fetchone()
        assert (facets.bounds.first_year, facets.bounds.last_year) == years
        assert facets.bounds.products == sum(plain(sql, "1", where("")).values())
        assert facets.depth is None

    check()


def test_attributes_with_few_values_are_discovered(shop: App) -> None:
    """`code` has too many values, `rare` too few products."""
    facets = shop.facets.of_query(Query(picture=photo(1000)))
    assert list(facets.values) == ["brand", "colour", "tags", "packaged"]
    assert counts(facets, "tags") == {"a": 40, "b": 20}
    assert counts(facets, "packaged") == {"0": 20, "1": 20}


def test_attributes_that_no_condition_names_are_no_facets(
    shop: App, sql: psycopg.Connection
) -> None:
    """A condition on `title` or `sku` is one on the column."""
    names = ["", "title", "sku", "year", " padded", "a=b", "fine"]
    sql.execute(
        "UPDATE product SET attributes = (SELECT jsonb_object_agg(name, product.id %% 2)"
        " FROM unnest(%s::text[]) AS name)", [names],
    )  # fmt: skip
    facets = shop.facets.of_query(Query(picture=photo(1000)))
    assert list(facets.values) == ["brand", "colour", "fine"]


def test_values_that_a_filter_takes_for_one_are_counted_as_one(
    shop: App, sql: psycopg.Connection
) -> None:
    sql.execute("UPDATE product SET colour = 'Red' WHERE colour = 'red' AND id % 8 = 0")
    sql.execute("UPDATE product SET colour = 'RED' WHERE colour = 'blue'")
    query = Query(picture=photo(1000), k=40)
    [(spelling, most), *_] = shop.facets.of_query(query).values["colour"].counts
    assert (spelling, most) == ("RED", 20)
    found = shop.search.search(replace(query, filters=parse([f"colour={spelling}"])))
    assert len(found.matches) == most
    assert counts(shop.facets.read(), "colour") == {"RED": 20, "green": 10, "grey": 10}


def test_facets_may_be_named_in_the_settings(shop: App, settings: Settings) -> None:
    named = settings.model_copy(update={"facets": "rare, brand,nothing"})
    with App(named, choose=choose_colours) as app:
        facets = app.facets.of_query(Query(picture=photo(1000)))
        assert list(facets.values) == ["brand", "rare"], "those without values are not offered"
        chosen = app.facets.of_query(Query(picture=photo(1000), filters=parse(["colour=red"])))
        assert counts(chosen, "colour")["red"] == 10, "what is chosen is offered"


def test_the_values_of_a_photo_are_those_of_the_nearest_products(
    shop: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.search.facets.DEPTH", 12)
    facets = shop.facets.of_query(Query(picture=photo(1000)))
    nearest = shop.search.search(Query(picture=photo(1000), k=12)).matches
    expected = Counter(match.product.colour for match in nearest)
    assert counts(facets, "colour") == expected
    assert (facets.depth, facets.bounds.products) == (12, 12)


@pytest.mark.parametrize("words", [None, "lamp"])
def test_results_that_were_all_counted_have_no_depth(
    shop: App, monkeypatch: pytest.MonkeyPatch, words: str | None
) -> None:
    query = Query(picture=None if words else photo(1000), words=words)
    count = shop.facets.of_query(query).bounds.products
    for depth, expected in ((count, None), (count - 1, count - 1)):
        monkeypatch.setattr(
            "app.search.facets.WORDS_DEPTH" if words else "app.search.facets.DEPTH", depth
        )
        facets = shop.facets.of_query(query)
        assert (facets.depth, facets.bounds.products) == (expected, depth)


def test_the_minimum_similarity_limits_the_facets(shop: App) -> None:
    nearest = shop.search.search(Query(picture=photo(1000), k=40)).matches
    least = nearest[6].similarity
    facets = shop.facets.of_query(Query(picture=photo(1000), min_similarity=least))
    assert facets.bounds.products == 7


def test_a_photo_is_not_encoded_again_for_its_facets(shop: App) -> None:
    cache = VectorCache()
    query = Query(picture=photo(1000))
    shop.search.search(query, cache)
    encoder = shop.encoder()
    before, encode = [], encoder.encode_prepared
    encoder.encode_prepared = lambda prepared: before.append(1) or encode(prepared)  # type: ignore
    shop.facets.of_query(query, cache)
    assert before == []


def test_a_query_that_finds_nothing_has_no_facets(shop: App) -> None:
    facets = shop.facets.of_query(Query(words="umbrella"))
    assert facets.values == {} and facets.bounds == FacetRange(0, None, None, None, None)


def test_an_invalid_query_has_no_facets(shop: App) -> None:
    with pytest.raises(BadInput, match="at least one"):
        shop.facets.of_query(Query())
