"""The search page in a real browser: details, filters, URLs, inputs, keyboard, layout."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from app.images import decoding
from support.browsing import (
    ODD_BRAND,
    ODD_TITLE,
    SOON_MS,
    Shop,
    error,
    first_card,
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
    upload(page, "photo.jpg", shop.photo.read_bytes())
    expect(first_card(page)).to_contain_text(shop.expected_sku)
    return page


@pytest.fixture(scope="module")
def web(shop: Shop) -> Iterator[str]:
    """The URL of a web server for the folder of the query photo."""
    serve = partial(http.server.SimpleHTTPRequestHandler, directory=str(shop.photo.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def overflows(page: Page) -> bool:
    wide: bool = page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    return wide


def test_before_the_first_search_products_are_shown(page: Page, artefacts: Path) -> None:
    expect(page.locator(".card")).to_have_count(8, timeout=SOON_MS)
    settled(page)
    page.screenshot(path=artefacts / "welcome.png")


def test_more_like_this_searches_with_that_product(found: Page, shop: Shop) -> None:
    second = skus(found)[1]
    found.get_by_role("button", name="More like this").nth(1).click()
    expect(found.get_by_role("textbox", name="Sku")).to_have_value(second, timeout=SOON_MS)
    settled(found)
    assert second not in skus(found) and f"sku={second}" in found.url


def test_the_buttons_of_a_card_name_its_product(found: Page) -> None:
    title = found.locator(".card h3").nth(1).inner_text()
    for name in (f"More like this {title}", f"Details of {title}"):
        expect(found.get_by_role("button", name=name)).to_be_visible()
    assert "Details" in found.locator("[class*=st-key-actions-]").nth(1).inner_text()


def test_details_show_everything_of_the_product(found: Page, shop: Shop, artefacts: Path) -> None:
    found.get_by_role("button", name="Details").first.click()
    dialog = found.get_by_role("dialog")
    expect(dialog).to_contain_text(shop.expected_sku, timeout=SOON_MS)
    for words in ("Brand", "Category", "material", "images/", "The same product", "another year"):
        expect(dialog).to_contain_text(words)
    drawn = dialog.locator("img").evaluate_all("all => all.map(one => one.naturalWidth)")
    assert drawn and 0 not in drawn
    found.screenshot(path=artefacts / "details.png")


def test_a_click_on_the_picture_opens_the_details(found: Page) -> None:
    box = found.locator(".card img").nth(1).bounding_box()
    assert box is not None
    found.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    sku = skus(found)[1]
    expect(found.get_by_role("dialog")).to_contain_text(sku, timeout=SOON_MS)


def test_from_the_details_more_like_this_closes_them(found: Page) -> None:
    sku = skus(found)[1]
    found.get_by_role("button", name="Details").nth(1).click()
    found.get_by_role("dialog").get_by_role("button", name="More like this").click()
    expect(found.get_by_role("textbox", name="Sku")).to_have_value(sku, timeout=SOON_MS)
    expect(found.get_by_role("dialog")).to_have_count(0, timeout=SOON_MS)


def test_text_of_the_catalogue_is_literal_everywhere(found: Page) -> None:
    title = " ".join(ODD_TITLE.split())
    expect(found.get_by_role("button", name=f"More like this {title}", exact=True)).to_be_visible()
    found.get_by_role("button", name="Details").first.click()
    dialog = found.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name=title, exact=True)).to_be_visible(timeout=SOON_MS)
    expect(dialog).to_contain_text(ODD_BRAND)
    found.keyboard.press("Escape")
    found.get_by_role("button", name="Brand", exact=True).click()
    found.get_by_role("combobox").click()
    found.keyboard.type("*Kes*")
    expect(found.get_by_role("option", name=f"{ODD_BRAND} (2)", exact=True)).to_be_visible()
    found.keyboard.press("Enter")
    expect(found.get_by_text(f"{ODD_BRAND} (2)", exact=True)).to_be_visible(timeout=SOON_MS)
    assert found.locator(".stApp b, .stApp i, .stApp script:not([src])").count() == 0


def test_a_filter_is_kept_in_the_url(page: Page, address: str, open_page: Open, shop: Shop) -> None:
    page.goto(f"{address}/?sku={shop.expected_sku}")
    first_card(page)
    page.get_by_role("button", name="Category", exact=True).click()
    page.get_by_role("combobox").click()
    page.get_by_role("option").first.click()
    expect(page.get_by_role("dialog", name="Category (1)")).to_be_visible(timeout=SOON_MS)
    settled(page)
    narrowed, url = skus(page), page.url
    page.reload()
    first_card(page)
    other = open_page(url)
    first_card(other)
    assert "category=" in url and skus(page) == skus(other) == narrowed


def test_choices_stay_when_other_filters_change_their_counts(
    page: Page, address: str, shop: Shop
) -> None:
    """The browser sends a choice by its label, which includes the count."""
    page.goto(f"{address}/?sku={shop.expected_sku}&fold=0")
    first_card(page)
    for name in ("Brand", "Category", "Colour"):
        page.get_by_role("button", name=name, exact=True).click()
        page.get_by_role("combobox").click()
        page.get_by_role("option").first.click()
        expect(page.get_by_role("dialog", name=f"{name} (1)")).to_be_visible(timeout=SOON_MS)
        settled(page)
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
    assert [page.url.count(f"{name}=") for name in ("brand", "category", "colour")] == [1, 1, 1]
    for name in ("Brand", "Category", "Colour"):
        expect(page.get_by_role("button", name=f"{name} (1)")).to_be_visible(timeout=SOON_MS)
    page.get_by_role("button", name="Clear filters").click()
    expect(page.get_by_role("button", name="Brand", exact=True)).to_be_visible(timeout=SOON_MS)


def test_the_back_button_returns_to_the_previous_search(
    page: Page, address: str, shop: Shop
) -> None:
    page.goto(f"{address}/?sku={shop.expected_sku}")
    first_card(page)
    page.get_by_role("button", name="More like this").nth(1).click()
    field = page.get_by_role("textbox", name="Sku")
    expect(field).not_to_have_value(shop.expected_sku, timeout=SOON_MS)
    settled(page)
    page.go_back()
    expect(field).to_have_value(shop.expected_sku, timeout=SOON_MS)


def test_leaving_and_reopening_the_search_page_keeps_photo_and_filters(
    found: Page, shop: Shop
) -> None:
    found.get_by_role("textbox", name="Words", exact=True).fill("lamp")
    found.keyboard.press("Enter")
    expect(found.get_by_text("best first")).to_be_visible(timeout=SOON_MS)
    settled(found)
    before = skus(found)
    found.get_by_role("link", name="Index").click()
    expect(found.get_by_role("heading", name="Index")).to_be_visible(timeout=SOON_MS)
    found.get_by_role("link", name="Search").click()
    first_card(found)
    assert skus(found) == before and "text=lamp" in found.url


def test_words_alone_find_products_and_the_page_shows_what_read_them(page: Page) -> None:
    page.get_by_role("textbox", name="Words", exact=True).fill("teapot")
    page.keyboard.press("Enter")
    expect(page.get_by_text("found by its words").first).to_be_visible(timeout=SOON_MS)
    expect(page.get_by_text("The words were read by the catalogue")).to_be_visible()


def test_a_region_of_the_photo_is_chosen_with_the_keyboard_and_framed(
    found: Page, artefacts: Path
) -> None:
    found.get_by_text("Search a part of the photo").click()
    found.get_by_role("slider", name="From left to right").first.focus()
    for _ in range(30):
        found.keyboard.press("ArrowRight")
    frame = found.locator(".asked .frame")
    expect(frame).to_have_attribute("style", "left:30%;top:0%;width:70%;height:100%")
    settled(found)
    found.screenshot(path=artefacts / "region.png")
    assert found.locator(".card").count() == 12


def test_paging_scrolls_to_the_top_and_back_shows_the_same_page(found: Page) -> None:
    first = skus(found)
    found.get_by_role("button", name="Next page").click()
    expect(found.get_by_role("heading", name="page 2")).to_be_in_viewport(timeout=SOON_MS)
    settled(found)
    assert not set(first) & set(skus(found))
    assert found.evaluate("document.activeElement.classList.contains('st-key-results')")
    found.get_by_role("button", name="Previous page").click()
    expect(found.get_by_role("heading", name="page 2")).to_have_count(0, timeout=SOON_MS)
    settled(found)
    assert skus(found) == first


def test_a_picture_is_downloaded_by_its_url(page: Page, shop: Shop, web: str) -> None:
    page.get_by_role("radio", name="Link").click()
    page.get_by_role("textbox", name="Address").fill(web + shop.photo.name)
    page.keyboard.press("Enter")
    expect(first_card(page)).to_contain_text(shop.expected_sku)


@pytest.mark.parametrize("where", ["http://127.0.0.1:9/x.jpg", "nonsense", "ftp://x/y.jpg", "."])
def test_a_url_without_a_picture_is_an_error_message(page: Page, web: str, where: str) -> None:
    page.get_by_role("radio", name="Link").click()
    page.get_by_role("textbox", name="Address").fill(web if where == "." else where)
    page.keyboard.press("Enter")
    said = error(page)
    assert (said[-1], "Something went wrong" in said) == (".", False)


def test_the_camera_is_used_only_when_chosen(page: Page) -> None:
    expect(page.get_by_test_id("stFileUploader")).to_be_visible()
    assert page.get_by_test_id("stCameraInput").count() == 0
    page.get_by_role("radio", name="Camera").click()
    expect(page.get_by_test_id("stCameraInput")).to_be_visible(timeout=SOON_MS)


def test_a_heic_photo_is_read(page: Page, shop: Shop) -> None:
    decoding.decode(shop.photo.read_bytes())  # which teaches Pillow HEIC
    file = BytesIO()
    Image.open(shop.photo).save(file, "HEIF")
    upload(page, "photo.heic", file.getvalue())
    expect(first_card(page)).to_contain_text(shop.expected_sku)


def test_a_file_of_50_megabytes_is_refused_and_the_next_one_searched(
    page: Page, shop: Shop, tmp_path: Path
) -> None:
    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(50_000_000))
    page.locator("input[type=file]").set_input_files(large)
    expect(page.get_by_text("File must be")).to_be_visible(timeout=SOON_MS)
    upload(page, "photo.jpg", shop.photo.read_bytes())
    expect(first_card(page)).to_contain_text(shop.expected_sku)


def test_an_unknown_sku_in_the_url_is_an_error_message(page: Page, address: str) -> None:
    page.goto(f"{address}/?sku=nobody&year=soon&k=-1")
    expect(page.get_by_text("No product of the catalogue has the sku")).to_be_visible(
        timeout=SOON_MS
    )
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


def test_the_page_can_be_used_by_keyboard(page: Page, address: str, shop: Shop) -> None:
    page.goto(f"{address}/?sku={shop.expected_sku}")
    first_card(page)
    page.get_by_role("textbox", name="Words", exact=True).focus()
    for _ in range(40):
        page.keyboard.press("Tab")
        focused = page.evaluate("document.activeElement.innerText") or ""
        if focused.startswith("More like this"):
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).boxShadow")
    assert outline != "none", "the focus is seen"
    page.keyboard.press("Enter")
    field = page.get_by_role("textbox", name="Sku")
    expect(field).not_to_have_value(shop.expected_sku, timeout=SOON_MS)


def test_headings_are_in_order_and_every_picture_has_an_alternative_text(found: Page) -> None:
    levels = found.locator("h1, h2, h3").evaluate_all("all => all.map(h => Number(h.tagName[1]))")
    assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    assert found.locator(".stApp img:not([alt]), .stApp img[alt='']").count() == 0
    assert found.locator("html").get_attribute("lang") == "en"


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1400, "dark")])
def test_results_fit_phone_and_screen_in_light_and_dark_mode(
    open_page: Open, address: str, shop: Shop, artefacts: Path, width: int, scheme: str
) -> None:
    page = open_page(address, width=width, scheme=scheme)
    upload(page, "photo.jpg", shop.photo.read_bytes())
    first_card(page)
    page.screenshot(path=artefacts / f"found-{width}-{scheme}.png")
    cards = page.locator("[class*=st-key-card-]")
    boxes = [box for card in cards.all()[:4] if (box := card.bounding_box())]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["height"] == boxes[1]["height"]
    assert not overflows(page)
    page.get_by_role("button", name="Details").first.click()
    expect(page.get_by_role("dialog")).to_contain_text(shop.expected_sku, timeout=SOON_MS)
    assert not overflows(page)


def _plain_picture() -> bytes:
    file = BytesIO()
    Image.new("RGB", (64, 64), "navy").save(file, "PNG")
    return file.getvalue()
