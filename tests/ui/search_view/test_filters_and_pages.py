"""Filters, the order of results and pages of the search page."""

from __future__ import annotations

import re

import psycopg
import pytest
import streamlit as st

from app.bootstrap import App
from support.search_page import (
    Visit,
    alerts,
    asked,
    options,
    press,
    searches,
    skus,
    upload,
    widget,
)
from support.shop import add, numbered
from support.sources import WatchedEncoder


def test_filters_paging_and_details_encode_nothing_again(
    goods: App, visit: Visit, encoder: WatchedEncoder
) -> None:
    page = upload(visit(), 7)
    widget(page, "pills", "brand").set_value(["Kestrel"]).run()
    press(page, "Next page")
    press(page, "Details")
    assert encoder.encoded == 1


def test_why_there_are_fewer_results_stands_beside_their_number(goods: App, visit: Visit) -> None:
    page = visit(sku="P0001", brand="Alder", year="2015")
    said = [re.sub(r"\\(.)", r"\1", each.value) for each in page.caption]
    assert "Most similar first. 2 products match these filters." in said
    assert "Most similar first" in [each.value for each in visit(sku="P0001").caption]


def test_a_reversed_range_is_an_error_message(goods: App, visit: Visit) -> None:
    page = upload(visit(), 7)
    widget(page, "number_input", "price_from").set_value(20.0).run()
    widget(page, "number_input", "price_to").set_value(10.0).run()
    assert "ends before it begins" in alerts(page)[0]


def test_a_value_is_offered_with_its_count(goods: App, visit: Visit) -> None:
    page = upload(visit(), 7)
    assert options(widget(page, "pills", "brand")) == ["Kestrel (30)", "Alder (10)"]


def test_a_rare_value_that_is_not_listed_can_be_typed(
    goods: App, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.search.facets.MAX_VALUES", 1)
    page = upload(visit(brand="Alder"), 7)
    brands = widget(page, "multiselect", "brand")
    assert (brands.options, brands.value) == (["Kestrel (30)", "Alder"], ["Alder"])
    assert len(skus(page)) == 10
    assert any(caption.value.startswith("Not listed: 1 rarer") for caption in page.caption)


def test_a_choice_stays_when_the_counts_change(goods: App, visit: Visit) -> None:
    page = upload(visit(), 7)
    widget(page, "pills", "brand").set_value(["Alder"]).run()
    add(goods, numbered(1, first=90), brand="Alder")
    st.cache_data.clear()
    page.run()
    assert widget(page, "pills", "brand").value == ["Alder"]
    assert asked(page)["brand"] == ["Alder"]


def test_the_filters_are_cleared_at_once(goods: App, visit: Visit) -> None:
    page = visit(sku="P0001", brand="Alder", price="12..", min="0.1", fold="0")
    press(page, "Clear filters")
    assert asked(page) == {"sku": ["P0001"]}


def test_the_pages_show_every_product_once(goods: App, visit: Visit) -> None:
    page = upload(visit(), 7)
    seen = [skus(page)]
    for _ in range(3):
        seen.append(skus(press(page, "Next page")))
    assert [len(each) for each in seen] == [12, 12, 12, 4]
    assert sorted(sku for each in seen for sku in each) == [f"P{n:04}" for n in range(40)]
    assert next(each for each in page.button if each.label == "Next page").disabled


def test_going_back_shows_the_same_page_without_a_search(goods: App, visit: Visit) -> None:
    page = upload(visit(), 7)
    first = skus(page)
    press(page, "Next page")
    before = searches()
    assert (skus(press(page, "Previous page")), searches()) == (first, before)


def test_another_filter_begins_with_the_first_page(goods: App, visit: Visit) -> None:
    page = upload(visit(), 7)
    press(page, "Next page")
    widget(page, "pills", "brand").set_value(["Kestrel"]).run()
    assert skus(page)[0] == "P0007"


def test_the_page_explains_fewer_results_by_the_minimum_similarity(
    goods: App, visit: Visit
) -> None:
    page = upload(visit(min="0.99"), 7)
    assert skus(page) == ["P0007"]
    assert any("less similar than 0" in each.value for each in page.caption)


def test_a_page_after_the_last_shows_the_last_page_and_its_address(
    goods: App, visit: Visit
) -> None:
    page = visit(sku="P0001", brand="Kestrel", page="9")
    assert (len(skus(page)), asked(page)["page"]) == (5, ["3"])


def test_results_are_sorted_by_price_and_paged(goods: App, visit: Visit) -> None:
    page = upload(visit(brand="Alder"), 7)
    widget(page, "selectbox", "sort").set_value("dearest").run()
    assert skus(page) == [f"P{n:04}" for n in range(36, -1, -4)]
    page = visit(sku="P0001", sort="cheapest", page="2")
    assert (skus(page)[0], asked(page)["page"]) == ("P0013", ["2"])
    assert skus(press(page, "Next page"))[0] == "P0025"
    assert skus(press(page, "Previous page"))[0] == "P0013"
    page = visit(sku="P0001", sort="cheapest", page="9")
    assert (len(skus(page)), asked(page)["page"]) == (3, ["4"])


def test_products_are_listed_by_filters_alone(goods: App, visit: Visit) -> None:
    page = visit(brand="Kestrel", price="20..40", sort="cheapest")
    expected = [f"P{n:04}" for n in range(10, 31) if n % 4]
    assert skus(page) == expected[:12]
    assert [header.value for header in page.header] == ["16 products"]
    assert skus(press(page, "Next page")) == expected[12:]
    page = visit(brand="Alder", year="1800..1801")
    assert alerts(page) == ["No products match these filters."]
    assert len(skus(press(page, "Clear filters"))) == 12


def test_counts_are_those_of_the_other_filters_and_choices_stay(goods: App, visit: Visit) -> None:
    page = upload(visit(), 7)
    widget(page, "pills", "brand").set_value(["Alder"]).run()
    assert options(widget(page, "pills", "brand")) == ["Kestrel (30)", "Alder (10)"]
    widget(page, "number_input", "year_from").set_value(2016).run()
    brands = widget(page, "pills", "brand")
    assert options(brands) == ["Kestrel (24)", "Alder (8)"] and brands.value == ["Alder"]
    page.run()
    assert widget(page, "pills", "brand").value == ["Alder"]
    assert asked(page)["brand"] == ["Alder"]


def test_facets_without_values_are_not_offered(goods: App, visit: Visit) -> None:
    page = upload(visit(), 7)
    assert [each.label for each in page.pills] == ["Brand"]


def test_attributes_with_few_values_can_be_chosen(
    goods: App, visit: Visit, sql: psycopg.Connection
) -> None:
    sql.execute("UPDATE product SET attributes = jsonb_build_object('packed', id % 2)")
    page = upload(visit(), 7)
    attributes = widget(page, "pills", "packed")
    assert options(attributes) == ["0 (20)", "1 (20)"]
    attributes.set_value(["1"]).run()
    assert asked(page) == {"attribute": ["packed=1"]}
    assert len(skus(page)) == 12 and not page.exception
    again = visit(sku="P0001", attribute="packed=0")
    assert widget(again, "pills", "packed").value == ["0"]
    assert alerts(visit(attribute="year>=2000")) != []
