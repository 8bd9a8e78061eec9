"""The search page, served by `lookalike page` and driven in a real browser."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator

import psycopg
import pytest
from playwright.sync_api import Page, expect

from app.bootstrap import App
from app.config import Settings
from app.db.embedded import server as embedded_server
from app.types import Query
from support.browsing import (
    ODD_TITLE,
    SOON_MS,
    Shop,
    error,
    explanation,
    first_card,
    served,
    upload,
)

# The tests of this page share one shop, one server and one browser.
pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("search_page")]


def bomb() -> bytes:
    """A PNG of a few KB that claims 50,000 x 50,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000), 9)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
BAD = {
    "corrupt.jpg": (b"\xff\xd8\xff\xe0" + bytes(range(256)) * 20, "The JPEG file is damaged"),
    "drawing.jpg": (SVG, "This is an SVG drawing"),
    "empty.jpg": (b"", "The file is empty"),
    "bomb.png": (bomb(), "far more pixels than the 64 megapixels"),
}
"""Files to upload, and a part of the error message of each."""


def test_the_product_on_the_photo_is_shown_first(answered: Page, shop: Shop) -> None:
    expect(first_card(answered)).to_contain_text(shop.expected_sku)


def test_each_card_shows_its_similarity(answered: Page) -> None:
    shown = answered.locator(".card .similarity").all_inner_texts()
    found = [
        re.fullmatch(r"similarity (-?[01]\.\d{3})( · [a-z ]+)?", text.strip()) for text in shown
    ]
    values = [float(card[1]) for card in found if card]
    assert (len(values), values) == (12, sorted(values, reverse=True))


def test_a_product_of_two_years_is_shown_once_with_the_other_year(
    answered: Page, shop: Shop
) -> None:
    expect(first_card(answered)).to_contain_text("also 1999")
    assert answered.get_by_text(f"{shop.expected_sku}-OLD").count() == 0


def test_a_card_shows_the_label_of_its_similarity(answered: Page, shop: Shop) -> None:
    with App(Settings(home=shop.home, model="embedded")) as app:
        found = app.search.search(Query(picture=shop.photo.read_bytes(), k=12, fold=True)).matches
    shown = answered.locator(".card .similarity").all_inner_texts()
    said = [text.strip().partition(" · ")[2] for text in shown]
    assert said == [match.means for match in found]
    assert said[-1] == "similar"


def test_the_page_shows_that_the_index_answered(answered: Page) -> None:
    assert "Answered by faiss" in explanation(answered)


def test_as_many_products_as_chosen_are_shown(page: Page, shop: Shop) -> None:
    upload(page, "photo.jpg", shop.photo.read_bytes())
    first_card(page)
    page.get_by_role("button", name="More", exact=True).click()
    page.get_by_role("radio", name="24").click()
    expect(page.locator(".card")).to_have_count(24, timeout=SOON_MS)


def test_a_title_is_shown_literally(answered: Page) -> None:
    assert first_card(answered).locator(".title").inner_text() == ODD_TITLE


def test_every_thumbnail_is_drawn(answered: Page) -> None:
    widths = "pictures => pictures.map(picture => picture.naturalWidth)"
    assert 0 not in answered.locator(".card img").evaluate_all(widths)


@pytest.mark.parametrize("width", [390, 1400])
def test_all_thumbnails_have_one_size(
    open_page: Callable[..., Page], address: str, shop: Shop, width: int
) -> None:
    page = open_page(address, width=width)
    upload(page, "photo.jpg", shop.photo.read_bytes())
    first_card(page)
    sizes = "all => all.map(p => [Math.round(p.clientWidth), Math.round(p.clientHeight)].join('x'))"
    assert len(set(page.locator(".card img").evaluate_all(sizes))) == 1


def test_on_a_phone_two_cards_are_side_by_side_without_overflow(
    open_page: Callable[..., Page], address: str, shop: Shop
) -> None:
    page = open_page(address, width=390)
    upload(page, "photo.jpg", shop.photo.read_bytes())
    first_card(page)
    tops = [box["y"] for card in page.locator(".card").all()[:3] if (box := card.bounding_box())]
    overflow = page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    assert (tops[0] == tops[1] < tops[2], overflow) == (True, False)


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_picture_is_refused_with_an_error_message(page: Page, name: str) -> None:
    data, sentence = BAD[name]
    upload(page, name, data)
    said = error(page)
    assert (sentence in said, said[-1], "Traceback" in page.content()) == (True, ".", False)


def test_after_bad_files_the_next_photo_is_searched(page: Page, shop: Shop) -> None:
    for name, (data, sentence) in BAD.items():
        upload(page, name, data)
        said = page.get_by_test_id("stAlert").filter(has_text=sentence)
        expect(said).to_contain_text(name, timeout=SOON_MS)
    upload(page, "photo.jpg", shop.photo.read_bytes())
    expect(first_card(page)).to_contain_text(shop.expected_sku)


def test_a_file_above_the_limit_is_refused_before_it_is_sent(page: Page) -> None:
    expect(page.get_by_text("29MB per file")).to_be_visible(timeout=SOON_MS)


@pytest.fixture
def no_index(shop: Shop) -> Iterator[None]:
    """The catalogue in its state before the first build."""
    with psycopg.connect(embedded_server.url(shop.home), autocommit=True) as connection:
        connection.execute("UPDATE index_build SET state = 'retired' WHERE state = 'published'")
        yield
        connection.execute("UPDATE index_build SET state = 'published' WHERE state = 'retired'")


@pytest.mark.usefixtures("no_index")
def test_without_an_index_the_product_is_found(page: Page, shop: Shop) -> None:
    upload(page, "photo.jpg", shop.photo.read_bytes())
    expect(first_card(page)).to_contain_text(shop.expected_sku)


@pytest.mark.usefixtures("no_index")
def test_without_an_index_the_page_shows_what_answered_and_why(page: Page, shop: Shop) -> None:
    upload(page, "photo.jpg", shop.photo.read_bytes())
    assert re.search(r"Answered by exact: no .*(index|build)", explanation(page))


def test_without_tables_or_products_the_page_shows_advice(
    open_page: Callable[..., Page], shop: Shop, empty_url: str
) -> None:
    with served(home=str(shop.home), database_url=empty_url) as url:
        page = open_page(url)
        upload(page, "photo.jpg", shop.photo.read_bytes())
        assert "Run `lookalike init` first" in error(page)
        with App(Settings(home=shop.home, database_url=empty_url, model="embedded")) as app:
            app.initialise()
        page = open_page(url)
        assert "The catalogue is empty" in error(page)
        upload(page, "photo.jpg", shop.photo.read_bytes())
        said = page.get_by_text("No products have a picture")
        expect(said).to_be_visible(timeout=SOON_MS)


@pytest.fixture
def stopped(shop: Shop) -> Iterator[None]:
    embedded_server.stop(shop.home)
    yield
    embedded_server.start(shop.home, {"fsync": "off"})


@pytest.mark.usefixtures("stopped")
def test_while_the_database_is_stopped_a_search_is_an_error_message(page: Page, shop: Shop) -> None:
    upload(page, "photo.jpg", shop.photo.read_bytes())
    socket_name = "/postgres/.s.PGSQL.5432"
    assert re.search(f"PostgreSQL cannot be reached: .*{socket_name}", error(page))


@pytest.mark.usefixtures("stopped")
def test_once_the_database_is_back_the_same_page_searches_again(page: Page, shop: Shop) -> None:
    upload(page, "photo.jpg", shop.photo.read_bytes())
    error(page)
    embedded_server.start(shop.home, {"fsync": "off"})
    upload(page, "again.jpg", shop.photo.read_bytes())
    expect(first_card(page)).to_contain_text(shop.expected_sku)
