"""The search page in a real browser: details, filters, URLs, inputs, keyboard, layout."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from support.browsing import (
    ODD_BRAND,
    ODD_TITLE,
    Shop,
    error,
    explanation,
    first_card,
    overflows,
    search_photo,
    settled,
    skus,
    upload,
)

# The tests of this page share one shop, one server and one browser.
pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("search_page")]

Open = Callable[..., Page]


@pytest.fixture
def found(page: Page, shop: Shop) -> Page:
    """A page with the results of the query photo."""
    search_photo(page, shop)
    return page


@pytest.fixture
def alike(open_page: Open, address: str, shop: Shop) -> Page:
    """A page with products like the expected one."""
    page = open_page(f"{address}/?sku={shop.expected_sku}")
    first_card(page)
    return page


def reference(page: Page) -> Locator:
    """What the results are compared with."""
    return page.locator(".st-key-reference")


@pytest.fixture(scope="module")
def web(shop: Shop, web_port: int) -> Iterator[str]:
    """The URL of a web server for the folder of the query photo."""
    serve = partial(http.server.SimpleHTTPRequestHandler, directory=str(shop.photo.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", web_port), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_before_the_first_search_products_are_shown_and_the_camera_is_used_only_when_chosen(
    page: Page, artefacts: Path
) -> None:
    expect(page.locator(".card")).to_have_count(12)
    settled(page)
    page.screenshot(path=artefacts / "welcome.png")
    expect(page.get_by_test_id("stFileUploader")).to_be_visible()
    assert page.get_by_test_id("stCameraInput").count() == 0
    page.get_by_role("button", name="Camera").click()
    expect(page.get_by_test_id("stCameraInput")).to_be_visible()


def test_more_like_this_is_found_from_a_card_its_details_and_the_keyboard_and_back_returns(
    alike: Page, shop: Shop
) -> None:
    before = skus(alike)
    alike.get_by_role("button", name="More like this").nth(1).click()
    expect(reference(alike)).to_contain_text(before[1])
    settled(alike)
    assert before[1] not in skus(alike) and f"sku={before[1]}" in alike.url
    return_to(alike, shop.expected_sku, before)
    alike.get_by_role("button", name="Details").nth(1).click()
    alike.get_by_role("dialog").get_by_role("button", name="More like this").click()
    expect(reference(alike)).to_contain_text(before[1])
    expect(alike.get_by_role("dialog")).to_have_count(0)
    settled(alike)
    return_to(alike, shop.expected_sku, before)
    alike.get_by_role("textbox", name="Search").focus()
    tab_to(alike, "More like this")
    outline = alike.evaluate("getComputedStyle(document.activeElement).boxShadow")
    assert outline != "none", "the focus is seen"
    alike.keyboard.press("Enter")
    expect(alike).not_to_have_url(re.compile(f"sku={shop.expected_sku}$"))


def return_to(page: Page, sku: str, before: list[str]) -> None:
    """Go back to the products like this one, which are as they were."""
    page.go_back()
    expect(reference(page)).to_contain_text(sku)
    settled(page)
    assert skus(page) == before


def test_the_buttons_of_a_card_name_its_product(answered: Page) -> None:
    title = answered.locator(".card h3").nth(1).inner_text()
    for name in (f"More like this {title}", f"Details of {title}"):
        expect(answered.get_by_role("button", name=name)).to_be_visible()
    assert "Details" in answered.locator("[class*=st-key-actions-]").nth(1).inner_text()


def test_button_and_picture_open_details_with_everything_and_text_is_literal_everywhere(
    found: Page, shop: Shop, artefacts: Path
) -> None:
    title = " ".join(ODD_TITLE.split())
    expect(found.get_by_role("button", name=f"More like this {title}", exact=True)).to_be_visible()
    found.get_by_role("button", name="Details").first.click()
    dialog = found.get_by_role("dialog")
    expect(dialog).to_contain_text(shop.expected_sku)
    for words in ("Brand", "Category", "material", "images/", "The same product", "another year"):
        expect(dialog).to_contain_text(words)
    drawn = dialog.locator("img").evaluate_all("all => all.map(one => one.naturalWidth)")
    assert drawn and 0 not in drawn
    found.screenshot(path=artefacts / "details.png")
    expect(dialog.get_by_role("heading", name=title, exact=True)).to_be_visible()
    expect(dialog).to_contain_text(ODD_BRAND)
    dialog.get_by_text("Show what matches").click()
    for what in ("of Your photo", f"of {title}"):
        heat = dialog.get_by_role("img", name=f"Heat map {what}").first
        expect(heat).to_be_visible()
        assert heat.evaluate("picture => picture.naturalWidth > 0")
    found.screenshot(path=artefacts / "heat.png")
    found.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    settled(found)
    picture, sku = found.locator(".card img").nth(1), skus(found)[1]
    picture.scroll_into_view_if_needed()  # waits until it no longer moves
    box = picture.bounding_box()
    assert box is not None
    found.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(dialog).to_contain_text(sku)
    found.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    settled(found)
    found.get_by_role("button", name="Brand", exact=True).click()
    found.get_by_role("combobox", name="Brand").click()
    found.keyboard.type("*Kes*")
    expect(found.get_by_role("option", name=f"{ODD_BRAND} (2)", exact=True)).to_be_visible()
    found.keyboard.press("Enter")
    expect(found.get_by_text(f"{ODD_BRAND} (2)", exact=True)).to_be_visible()
    expect(found.locator(".st-key-chosen-0")).to_contain_text(f"Brand: {ODD_BRAND}")
    marked = "document.querySelectorAll('.stApp b, .stApp i, .stApp script:not([src])').length"
    assert found.evaluate(marked) == 0


def test_choices_stay_when_other_filters_change_their_counts_and_are_kept_in_the_url(
    open_page: Open, address: str, shop: Shop
) -> None:
    """The browser sends a choice by its label, which includes the count."""
    page = open_page(f"{address}/?sku={shop.expected_sku}&fold=0")
    first_card(page)
    for name in ("Brand", "Category", "Colour"):
        choose_first(page, name)
    assert [page.url.count(f"{name}=") for name in ("brand", "category", "colour")] == [1, 1, 1]
    for name in ("Brand", "Category", "Colour"):
        expect(page.get_by_role("button", name=f"{name} (1)")).to_be_visible()
    narrowed, url = skus(page), page.url
    page.reload()
    first_card(page)
    other = open_page(url)
    first_card(other)
    assert skus(page) == skus(other) == narrowed


def choose_first(page: Page, name: str) -> None:
    """Choose the most frequent value of a filter, and close its box."""
    page.get_by_role("button", name=name, exact=True).click()
    box = page.get_by_test_id("stPopoverBody")
    expect(box.get_by_role("combobox").or_(box.get_by_test_id("stButtonGroup"))).to_be_visible()
    if box.get_by_role("combobox").count():
        box.get_by_role("combobox").click()
        page.get_by_role("option").first.click()
    else:
        box.get_by_test_id("stButtonGroup").get_by_role("button").first.click()
    expect(page.get_by_role("dialog", name=f"{name} (1)")).to_be_visible()
    settled(page)
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")


def test_a_region_is_chosen_by_keyboard_and_leaving_the_page_keeps_photo_region_and_words(
    found: Page, artefacts: Path
) -> None:
    found.get_by_role("button", name="Part of the photo").click()
    found.get_by_role("slider", name="From left to right").first.focus()
    for _ in range(5):
        found.keyboard.press("ArrowRight")
    box = found.locator(".box")
    expect(box).to_have_attribute("style", "left: 5%; top: 0%; width: 95%; height: 100%;")
    settled(found)
    found.screenshot(path=artefacts / "region.png")
    assert found.locator(".card").count() == 12
    found.get_by_role("textbox", name="Search").fill("lamp")
    found.keyboard.press("Enter")
    expect(found).to_have_url(re.compile("text=lamp"))
    settled(found)
    before = skus(found)
    found.get_by_role("link", name="Index").click()
    expect(found.get_by_role("heading", name="Index")).to_be_visible()
    found.get_by_role("link", name="Search").click()
    first_card(found)
    assert skus(found) == before and "text=lamp" in found.url
    expect(box).to_have_attribute("style", re.compile("left: 5%; top: 0%; width: 95%"))


def test_words_alone_find_products_and_the_page_shows_what_read_them(
    page: Page, open_page: Open, address: str
) -> None:
    page.get_by_role("textbox", name="Search").fill("teapot")
    page.keyboard.press("Enter")
    # The model finds every product more or less similar: there is no total to state.
    expect(page.get_by_role("heading", name="Top 12 results", exact=True)).to_be_visible()
    expect(page.locator(".card .similarity").first).to_contain_text("Similarity 0.")
    assert "The words were read by the model and the catalogue." in explanation(page)
    looked_up = open_page(f"{address}/?text=teapot&reader=catalogue")
    expect(looked_up.locator(".card .similarity").first).to_have_text("Text match")
    assert "The words were read by the catalogue." in explanation(looked_up)


def test_paging_scrolls_to_the_top_and_back_shows_the_same_page(alike: Page) -> None:
    first = skus(alike)
    alike.get_by_role("button", name="Next page").click()
    expect(alike.get_by_role("heading", name="Results 13 to 24")).to_be_in_viewport()
    settled(alike)
    assert not set(first) & set(skus(alike))
    assert alike.evaluate("document.activeElement.classList.contains('st-key-results')")
    assert "page=2" in alike.url
    alike.get_by_role("button", name="Previous page").click()
    expect(alike.get_by_role("heading", name="Top 12")).to_be_visible()
    settled(alike)
    assert skus(alike) == first


def test_a_url_without_a_picture_is_an_error_message_and_the_next_picture_is_downloaded(
    page: Page, shop: Shop, web: str
) -> None:
    field, alert = page.get_by_role("textbox", name="Search"), page.get_by_test_id("stAlert")
    said = [""]
    for where in ("http://127.0.0.1:9/x.jpg", "ftp://x/y.jpg", web):
        field.fill(where)
        field.press("Enter")
        expect(alert).not_to_have_text(said[-1])
        settled(page)
        said.append(error(page))
        assert (said[-1][-1], "Something went wrong" in said[-1]) == (".", False)
    assert len(set(said)) == 4
    field.fill(web + shop.photo.name)
    field.press("Enter")
    expect(first_card(page)).to_contain_text(shop.expected_sku)
    expect(field.first).to_have_value("")  # the field before may still be on the page
    settled(page)
    expect(field).to_have_value("")
    assert "image=http" in page.url


def test_an_unknown_sku_in_the_url_is_an_error_message(open_page: Open, address: str) -> None:
    page = open_page(f"{address}/?sku=nobody&year=soon&k=-1")
    expect(page.get_by_text("No product of the catalogue has the sku")).to_be_visible()
    assert "Traceback" not in page.content()


def test_two_sessions_are_independent(open_page: Open, address: str, shop: Shop) -> None:
    one, other = open_page(address), open_page(address)
    upload(one, "photo.jpg", shop.photo.read_bytes())
    upload(other, "other.png", _plain_picture())
    expect(first_card(one)).to_contain_text(shop.expected_sku)
    first_card(other)
    expect(one.get_by_alt_text("Your photo photo.jpg")).to_be_visible()
    expect(other.get_by_alt_text("Your photo other.png")).to_be_visible()
    assert skus(one) != skus(other)


def tab_to(page: Page, label: str) -> None:
    """Press Tab until the element with this label has the focus and the page is at rest.

    An element that a run of the script replaces loses the focus.
    """
    seen = []
    for _ in range(100):
        page.keyboard.press("Tab")
        settled(page)
        seen.append(page.evaluate("document.activeElement.innerText") or "")
        if seen[-1].startswith(label):
            return
    raise AssertionError(seen)


def test_headings_are_in_order_and_every_picture_has_an_alternative_text(answered: Page) -> None:
    levels = answered.locator("h1, h2, h3").evaluate_all(
        "all => all.map(h => Number(h.tagName[1]))"
    )
    assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    assert answered.locator(".stApp img:not([alt]), .stApp img[alt='']").count() == 0
    assert answered.locator("html").get_attribute("lang") == "en"


SIZES = "all => all.map(p => [Math.round(p.clientWidth), Math.round(p.clientHeight)].join('x'))"


@pytest.mark.parametrize(("width", "scheme", "columns"), [(390, "light", 2), (1400, "dark", 4)])
def test_results_fit_phone_and_screen_in_light_and_dark_mode(
    open_page: Open, address: str, shop: Shop, artefacts: Path,
    width: int, scheme: str, columns: int,
) -> None:  # fmt: skip
    page = open_page(f"{address}/?sku={shop.expected_sku}", width=width, scheme=scheme)
    first_card(page)
    page.screenshot(path=artefacts / f"found-{width}-{scheme}.png")
    cards = page.locator("[class*=st-key-card-]")
    boxes = [box for card in cards.all()[: columns + 1] if (box := card.bounding_box())]
    *row, below = [box["y"] for box in boxes]
    assert set(row) == {row[0]} and row[0] < below
    assert len({box["height"] for box in boxes[:columns]}) == 1
    assert len(set(page.locator(".card img").evaluate_all(SIZES))) == 1
    assert not overflows(page)
    page.get_by_role("button", name="Details").first.click()
    expect(page.get_by_role("dialog")).to_contain_text(skus(page)[0])
    assert not overflows(page)


def _plain_picture() -> bytes:
    file = BytesIO()
    Image.new("RGB", (64, 64), "navy").save(file, "PNG")
    return file.getvalue()
