"""Searches with a filter: every path returns the k nearest products that pass, and is fresh."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial

import numpy as np
import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.errors import BadInput, BuildRefused
from app.evaluation.planner_tuning import crossovers, tune
from app.search.filters import parse
from app.types import Filters, Query, SearchResult
from conftest import Fill
from support.colours import choose_colours
from support.shop import add, numbered, oracle, vectors

PATHS = {
    "exact": (10_000, 1.0, "exact"),
    "among": (1, 1.0, "faiss-filtered"),
    "deep": (1, 0.0001, "faiss-filtered"),
}
ROWS = 240


pytestmark = pytest.mark.xdist_group("planner_filtered")  # the catalogues are filled once


def fill(app: App, path: str) -> None:
    """240 products in eight brands; after the build some change, go, come, and change brand."""
    for brand in range(8):
        add(
            app, numbered(ROWS // 8, first=30 * brand), brand=f"b{brand}", year=2000 + brand,
            price=Decimal(brand) + Decimal("0.5"),
            attributes={"wool": brand % 2, "tags": ["x", f"t{brand}"]},
        )  # fmt: skip
    with app.engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE")
        if path in PATHS:
            connection.exec_driver_sql(
                "INSERT INTO tuning (model_id, exact_pictures, deep_share) VALUES (1, %s, %s)",
                PATHS[path][:2],
            )
    if path in PATHS:
        app.indexer.rebuild()
    add(app, numbered(12, first=1000), brand="b3", year=2003)
    app.catalog.delete([f"P{n:04}" for n in range(90, 100)])
    with app.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE product SET brand = 'b3' WHERE sku = 'P0001'")
        connection.exec_driver_sql("UPDATE product SET brand = 'b4' WHERE sku = 'P0101'")


def fill_few(app: App) -> None:
    add(app, numbered(20))
    app.indexer.rebuild()


FILLED = {path: partial(fill, path=path) for path in (*PATHS, "no build")} | {"few": fill_few}


@pytest.fixture(scope="module", params=[*PATHS, "no build"])
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def shop_url(shared_filled_database: Callable[[Fill], str], path: str) -> str:
    """A filled catalogue, for tests that only read it."""
    return shared_filled_database(FILLED[path])


@pytest.fixture(scope="module")
def shop(shop_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    settings = Settings(home=tmp_path_factory.mktemp("home"), database_url=shop_url)
    with App(settings, choose=choose_colours) as app:
        yield app


@pytest.fixture(scope="module")
def shop_sql(shop_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(shop_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def database_url(filled_database: Callable[[Fill], str], path: str) -> str:
    """A copy of a filled catalogue, for tests that write."""
    return filled_database(FILLED[path])


def ask(app: App, filters: Filters, k: int = 10, seed: int = 5000) -> SearchResult:
    [vector] = vectors(app, [seed])
    return app.search.search(Query(vector=vector, model_id=1, k=k, filters=filters))


def expected(app: App, sql: psycopg.Connection, where: str, seed: int, k: int) -> list[str]:
    rows = sql.execute(
        "SELECT p.sku, e.picture_id, e.vec::text FROM product AS p"
        " JOIN product_picture AS pp ON pp.product_id = p.id"
        f" JOIN embedding AS e USING (picture_id) WHERE {where}"
    ).fetchall()
    if not rows:
        return []
    skus = {row[1]: row[0] for row in rows}
    table = {row[1]: np.array([float(x) for x in row[2].strip("[]").split(",")]) for row in rows}
    return [skus[id_] for id_, _ in oracle(table, vectors(app, [seed])[0], k)]


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["brand=b3"], "p.brand = 'b3'"),
        (["brand=b3", "brand=b4"], "p.brand IN ('b3', 'b4')"),
        (["year>=2002", "year<=2003"], "p.year BETWEEN 2002 AND 2003"),
        (["year=2002..2003"], "p.year BETWEEN 2002 AND 2003"),
        (["price=..2.5"], "p.price <= 2.5"),
        (["wool=1"], "p.attributes ->> 'wool' = '1'"),
        (["tags=t5"], "p.attributes -> 'tags' ? 't5'"),
        (["brand=b3", "year>=2004"], "p.brand = 'b3' AND p.year >= 2004"),
        (["brand=none"], "false"),
        (["sku=P0001", "sku=P0101", "sku=gone"], "p.sku IN ('P0001', 'P0101')"),
        (["year>=1900"], "p.year >= 1900"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("k", [1, 10, 200])
def test_every_path_returns_the_nearest_products_that_pass(
    shop: App, shop_sql: psycopg.Connection, words: list[str], where: str, k: int
) -> None:
    result = ask(shop, parse(words), k)
    assert [m.product.sku for m in result.matches] == expected(shop, shop_sql, where, 5000, k)
    assert (result.plan.shortfall is None) == (len(result.matches) == k)


def test_the_path_is_the_one_that_was_measured_to_be_cheapest(shop: App, path: str) -> None:
    plan = ask(shop, parse(["year>=2001"]), 5).plan
    assert plan.path == (PATHS[path][2] if path in PATHS else "exact")
    assert ("among" in plan.reason) == (path == "among")
    assert ("deeper" in plan.reason) == (path == "deep")


@pytest.mark.parametrize("path", ["deep"], indirect=True)
def test_products_that_pass_far_from_the_query_are_found(app: App, sql: psycopg.Connection) -> None:
    """None of the nearest products passes: searching deeper finds nothing."""
    near = expected(app, sql, "true", 5000, 150)
    sql.execute("UPDATE product SET brand = 'near' WHERE sku = ANY(%s)", [near])
    sql.execute("UPDATE product SET brand = 'far' WHERE brand <> 'near'")
    sql.execute("ANALYZE")
    sql.execute("UPDATE tuning SET deep_share = 0.2")
    result = ask(app, parse(["brand=far"]))
    assert [m.product.sku for m in result.matches] == expected(
        app, sql, "p.brand = 'far'", 5000, 10
    )


@pytest.mark.parametrize("path", ["among"], indirect=True)
def test_ids_that_take_long_to_read_are_not_read_first(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "among" in ask(app, parse(["year>=2001"]), 5).plan.reason
    monkeypatch.setattr("app.search.planner.SLOWLY_READ", 100)
    found = ask(app, parse(["year>=2002"]), 5)
    assert "deeper" in found.plan.reason
    assert [m.product.sku for m in found.matches] == expected(app, sql, "p.year >= 2002", 5000, 5)
    monkeypatch.setattr("app.search.planner.MAX_DEEP_NOMINEES", 20)
    assert "among" in ask(app, parse(["year>=2003"]), 5).plan.reason


@pytest.mark.parametrize("path", ["exact"], indirect=True)
def test_wrong_statistics_do_not_change_the_result(app: App, sql: psycopg.Connection) -> None:
    sql.execute("UPDATE tuning SET exact_pictures = 5, deep_share = 0.9")
    sql.execute("UPDATE product SET colour = 'red'")  # the planner believes that there are none
    result = ask(app, parse(["colour=red"]))
    assert result.plan.path == "faiss-filtered"
    assert [m.product.sku for m in result.matches] == expected(app, sql, "true", 5000, 10)


@pytest.mark.parametrize("path", ["exact"], indirect=True)
def test_a_picture_shared_with_a_product_that_does_not_pass(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, {"MINE": [5000]}, brand="mine")
    add(app, {"OTHER": [5000]}, brand="other")
    for exact, share in ((10_000, 1.0), (1, 1.0), (1, 0.0001)):
        sql.execute("UPDATE tuning SET exact_pictures = %s, deep_share = %s", [exact, share])
        found = ask(app, parse(["brand=mine"]))
        assert [m.product.sku for m in found.matches] == ["MINE"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["brand"], "not of the form"), (["=x"], "not of the form"), (["weight>=3"], "have ranges"),
        (["year>=2000", "year>=2001"], "twice"), (["year=.."], "no bounds"),
        (["year=new"], "not a whole number"), (["year=99999999999"], "is not between"),
        (["price<=x"], "not a number"), (["brand>=A"], "have ranges"),
        (["year=2021..2019"], "swap its ends"), (["price=10...20"], "one dot too many"),
        (["brand!=x"], "not of the form"),
    ],
)  # fmt: skip
def test_an_invalid_filter_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        parse(words)


@pytest.mark.parametrize(
    "value", ["1e400", "-1e-400", "NaN", "Infinity", "null", "[1]", '{"a":1}', "[" * 100_000]
)
@pytest.mark.parametrize("path", ["exact"], indirect=True)
def test_an_attribute_may_be_compared_with_any_text(shop: App, value: str) -> None:
    assert ask(shop, parse([f"wool={value}"])).matches == ()


@pytest.mark.parametrize("path", ["exact"], indirect=True)
def test_an_unknown_attribute_is_named_in_the_shortfall(shop: App) -> None:
    said = ask(shop, parse(["brnd=b3"])).plan.shortfall
    assert said is not None and "No product has an attribute 'brnd'; did you mean brand?" in said
    known = ask(shop, parse(["wool=7"])).plan.shortfall
    assert known is not None and "attribute" not in known


@pytest.mark.parametrize("path", ["exact"], indirect=True)
def test_an_empty_set_of_values_matches_nothing(shop: App) -> None:
    assert ask(shop, Filters(attributes={"wool": ()})).matches == ()
    assert ask(shop, Filters({"brand": ()})).matches == ()


@pytest.mark.parametrize("path", ["few"], indirect=True)
def test_tuning_too_small_a_catalogue_is_refused(app: App, sql: psycopg.Connection) -> None:
    with pytest.raises(BuildRefused, match="too little to measure"):
        tune(app.engine, app.files, app.settings)
    assert sql.execute("SELECT count(*) FROM tuning").fetchone() == (0,)


def test_crossovers_follow_from_the_measurements() -> None:
    figures = {
        100: {"exact": 1.0, "among": 4.0, "deep": 9.0},
        1000: {"exact": 3.0, "among": 4.0, "deep": 9.0},
        5000: {"exact": 9.0, "among": 5.0, "deep": 6.0},
        20000: {"exact": 40.0, "among": 12.0, "deep": 4.0},
    }
    found = crossovers(figures, 100_000)
    assert (found.exact_pictures, found.deep_share) == (1000, pytest.approx(0.2))
    assert crossovers(figures, 100_000, shown=2.5).exact_pictures == 2500
    nothing = crossovers({}, 0)
    assert nothing.exact_pictures >= 1 and 0 < nothing.deep_share <= 1


@pytest.mark.parametrize("path", ["among"], indirect=True)
def test_tuning_stores_its_measurements(app: App, sql: psycopg.Connection) -> None:
    found = tune(app.engine, app.files, app.settings)
    assert set(found.figures) == {50, 100, 200}
    assert all(ms > 0 for sizes in found.figures.values() for ms in sizes.values())
    row = sql.execute("SELECT exact_pictures, deep_share, figures FROM tuning").fetchone()
    assert row is not None
    assert row[0] == found.crossovers.exact_pictures
    assert row[1] == pytest.approx(found.crossovers.deep_share)
    assert row[2]["ms"]["50"] == found.figures[50]
