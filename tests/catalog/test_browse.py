"""Lists of products without a query: filters, order, pages, total."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from app.bootstrap import App
from app.types import Count, Filters, Product
from conftest import Fill
from support.shop import add_products


def priced(app: App) -> None:
    """Five products with prices, and one without a price and without a picture."""
    prices = {"A": 5, "B": 3, "C": 9, "D": 3, "E": None}
    add_products(app, [
        (Product(sku, brand="Kestrel" if sku in "AB" else "Alder",
                 price=None if price is None else Decimal(price)), [place] if price else [])
        for place, (sku, price) in enumerate(prices.items())
    ])  # fmt: skip


@pytest.fixture
def database_url(filled_database: Callable[[Fill], str]) -> str:
    return filled_database(priced)


def test_products_are_listed_in_each_order_a_page_at_a_time(app: App) -> None:
    def skus(order: str, **page: int) -> str:
        listed = app.catalog.browse(Filters(), order, **page)  # type: ignore[arg-type]
        assert listed.total == Count(5)
        return "".join(each.product.sku for each in listed.products)

    orders = {order: skus(order) for order in ("newest", "cheapest", "dearest")}
    assert orders == {"newest": "EDCBA", "cheapest": "DBACE", "dearest": "CADBE"}
    assert skus("cheapest", first=1, count=2) == "BA"
    assert skus("newest", first=9) == ""


def test_a_filter_narrows_the_list_and_a_product_without_a_picture_is_in_it(app: App) -> None:
    listed = app.catalog.browse(Filters(columns={"brand": "alder"}))
    assert [(each.product.sku, each.thumbnail is None) for each in listed.products] == [
        ("E", True), ("D", False), ("C", False),
    ]  # fmt: skip
    assert listed.total == Count(3)
