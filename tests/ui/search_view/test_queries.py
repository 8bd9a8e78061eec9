"""What is asked on the search page by words, URL and sku, and the messages about it."""

from __future__ import annotations

import re

import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.ui import shared
from app.ui.views.search import PAGES
from support.colours import choose_colours
from support.concurrency import slots_occupied
from support.search_page import (
    Visit,
    alerts,
    asked,
    press,
    searches,
    skus,
    upload,
    widget,
)
from support.servers import wait_until
from support.shop import add, numbered


def test_before_the_first_search_the_page_shows_products(goods: App, visit: Visit) -> None:
    page = visit()
    assert skus(page) == [f"P{n:04}" for n in range(36, -1, -4)] + ["P0039", "P0038"]
    assert [header.value for header in page.header] == ["40 products"]


def test_without_tables_or_products_the_page_shows_advice(
    settings: Settings, empty_url: str, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = settings.model_copy(update={"database_url": empty_url, "page_metrics_port": 0})
    with App(own, choose=choose_colours) as empty:
        monkeypatch.setattr(shared, "App", lambda: empty)
        assert "Run `lookalike init` first" in alerts(upload(visit(), 7))[0]
        empty.initialise()
        page = visit()
        advice = "The catalogue is empty. Load products with `lookalike ingest`, then search."
        assert alerts(page) == [advice]
        assert "No products have a picture" in alerts(upload(page, 7))[0]


def test_an_unchanged_query_is_not_searched_again(goods: App, visit: Visit) -> None:
    page = upload(visit(), 7)
    before = searches()
    press(page.run(), "Details")
    assert searches() == before == 1


def test_words_alone_find_products_under_a_singular_heading(goods: App, visit: Visit) -> None:
    page = visit()
    widget(page, "text_input", "words").set_value("P0012").run()
    assert skus(page) == ["P0012"]
    assert [header.value for header in page.header] == ["1 result"]
    assert asked(page) == {"text": ["P0012"]}


def test_the_page_shows_what_read_the_words(goods: App, visit: Visit) -> None:
    said = " ".join(caption.value for caption in visit(text="title").caption)
    assert "The words were read by the catalogue" in said.replace("\\", "")


def test_words_for_a_model_without_text_are_an_error_message(goods: App, visit: Visit) -> None:
    said = alerts(visit(text="lamp", reader="model"))
    assert len(said) == 1 and "reads pictures only" in said[0]


def test_words_alone_with_a_minimum_similarity_are_an_error_message(
    goods: App, visit: Visit
) -> None:
    assert "leave out" in alerts(visit(text="title", min="0.5"))[0]


def test_a_busy_service_is_a_warning_with_a_button_to_try_again(
    goods: App, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = visit()
    admission = shared.services().admission
    monkeypatch.setattr(admission, "_wait_s", 0.0)
    with slots_occupied(admission):
        page = upload(page, 7)
    [said] = [each.value for each in page.warning]
    assert "Too many searches" in said and not page.exception and not page.error
    [again] = [button for button in page.button if button.label == "Try again"]
    assert skus(again.click().run())[0] == "P0007"


def test_a_url_with_a_sku_and_filters_is_a_search(goods: App, visit: Visit) -> None:
    page = visit(sku="P0001", brand=["Alder"], year="2015..2016", k="24")
    expected = {f"P{n:04}" for n in range(40) if n % 4 == 0 and n % 5 < 2}
    assert set(skus(page)) == expected


def test_an_unknown_sku_is_one_error_message(goods: App, visit: Visit) -> None:
    [said] = alerts(visit(sku="P000X"))
    assert said.startswith("No product of the catalogue has the sku 'P000X'. Did you mean P0000")


def test_an_unknown_brand_finds_nothing_with_an_explanation(goods: App, visit: Visit) -> None:
    page = visit(sku="P0001", brand="Nobody")
    assert widget(page, "pills", "brand").value == ["Nobody"]
    assert alerts(page)[0] == "No products match these filters."
    assert len(skus(press(page, "Clear filters"))) == 12


@pytest.mark.parametrize(
    "address", [{"price": "9..1"}, {"k": "1000000"}, {"sku": "\0"}, {"brand": "\0"}]
)
def test_an_invalid_url_is_one_message_shown_once_and_the_page_works(
    goods: App, visit: Visit, address: dict[str, str]
) -> None:
    page = visit(**address)
    assert len(alerts(page)) == 1 and not page.exception
    assert skus(upload(page, 7))[0] == "P0007"
    assert alerts(page) == []


def test_an_image_url_in_a_private_network_is_refused_in_one_sentence(
    goods: App, visit: Visit
) -> None:
    page = visit(image="http://127.0.0.1/secret.png")
    said = "Images on private networks can't be loaded. Download it and upload the file."
    assert (alerts(page), skus(page)) == ([said], [])
    assert len(skus(press(page, "Remove image URL"))) == 12


def test_search_again_finds_new_products(goods: App, visit: Visit) -> None:
    page = upload(visit(), 91)
    assert "P0091" not in skus(page)
    add(goods, numbered(1, first=91))
    assert skus(press(page, "Search again"))[0] == "P0091"


def test_a_fallback_is_shown_with_its_reason_and_not_as_an_error(
    goods: App, visit: Visit, sql: psycopg.Connection
) -> None:
    sql.execute("UPDATE index_build SET state = 'retired'")
    page = upload(visit(), 7)
    said = [re.sub(r"\\(.)", r"\1", caption.value) for caption in page.caption]
    assert any(each.startswith("The index did not answer: no index") for each in said)
    assert (skus(page)[0], page.error.len) == ("P0007", 0)


def test_the_page_shows_the_age_of_the_index(goods: App, visit: Visit) -> None:
    goods.indexer.rebuild()
    page = upload(visit(), 7)
    said = page.caption[-1].value.replace("\\", "")
    assert "Answered by faiss: build " in said and "The index was built just now." in said


def test_what_the_model_cannot_do_is_not_offered(goods: App, visit: Visit) -> None:
    page = visit(text="title")
    assert [each.label for each in page.segmented_control] == ["Results per page"]
    assert "Exclude" not in [each.label for each in page.text_input]


def test_too_long_words_in_a_url_are_an_error_message(goods: App, visit: Visit) -> None:
    page = visit(text="lamp " * 500)
    assert "use at most 1000" in alerts(page)[0] and not page.exception


def test_the_model_is_loaded_before_the_first_visitor(goods: App, visit: Visit) -> None:
    """`visit` has not opened a page: only the process of the pages has begun."""
    assert not shared._prepared
    app = shared.prepare()
    try:
        wait_until(lambda: app.is_warm, "the model waits for a visitor")
    finally:
        shared._prepared.clear()


def test_words_are_read_in_the_language_of_the_page(goods: App, visit: Visit) -> None:
    asked_in = {
        language: visit(lang=language, text="title Rock").session_state[PAGES].query.words_language
        for language in ("de", "en")
    }
    assert asked_in == {"de": "de", "en": None}
