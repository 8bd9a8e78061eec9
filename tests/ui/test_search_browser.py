"""The search page, served by `lookalike page` and driven in a real browser."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import psycopg
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from app.bootstrap import App
from app.config import Settings
from app.db.embedded import server as embedded_server
from app.images import decoding
from app.types import Query
from app.ui.languages import COOKIE
from support.browsing import (
    ODD_TITLE,
    Shop,
    Tabs,
    error,
    explanation,
    first_card,
    settled,
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


@pytest.mark.parametrize(
    ("language", "title", "text", "close"),
    [("en", "Page not found", "There is no page at this address. This is the search.", "Close"),
     ("de", "Seite nicht gefunden",
      "Unter dieser Adresse gibt es keine Seite. Dies ist die Suche.", "Schließen")],
)  # fmt: skip
def test_an_address_without_a_page_is_told_in_the_language_of_the_page(
    tabs: Tabs, address: str, language: str, title: str, text: str, close: str
) -> None:
    page = tabs.empty()
    page.goto(f"{address}/nowhere?lang={language}")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name=title)).to_be_visible()
    expect(dialog.get_by_text(text)).to_be_visible()
    dialog.get_by_role("button", name=close).click()
    expect(dialog).to_have_count(0)
    settled(page)
    page.close()
    tabs.forget(COOKIE)  # later pages would be in this language


def test_the_picture_of_a_card_grows_under_the_pointer_where_motion_is_wanted(
    answered: Page,
) -> None:
    page = answered
    first_card(page)
    page.emulate_media(reduced_motion="no-preference")
    scale = "getComputedStyle(document.querySelector('.card .shown img')).transform"
    assert page.evaluate(scale) == "none"
    page.locator(".card .shown img").first.hover(force=True)
    page.wait_for_function(f"{scale}.startsWith('matrix(1.35,')")
    page.emulate_media(reduced_motion="reduce")
    page.wait_for_function(f"{scale} === 'none'")


def test_each_card_shows_its_similarity(answered: Page) -> None:
    shown = answered.locator(".card .similarity").all_inner_texts()
    found = [
        re.fullmatch(r"Similarity (-?[01]\.\d{2})( · [a-z ]+)?", text.strip()) for text in shown
    ]
    values = [float(card[1]) for card in found if card]
    assert (len(values), values) == (12, sorted(values, reverse=True))


def test_a_product_of_two_years_is_shown_once_with_the_other_year(
    answered: Page, shop: Shop
) -> None:
    expect(answered.get_by_role("button", name="+1 similar listing (1999)")).to_be_visible()
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


def test_as_many_products_as_chosen_are_shown(
    open_page: Callable[..., Page], address: str, shop: Shop
) -> None:
    page = open_page(f"{address}/?sku={shop.expected_sku}")
    page.get_by_role("button", name="Options", exact=True).click()
    page.get_by_role("radio", name="24").click()
    expect(page.locator(".card")).to_have_count(24)


def test_a_title_is_shown_literally(answered: Page) -> None:
    assert first_card(answered).locator(".title").inner_text() == ODD_TITLE


def test_every_thumbnail_is_drawn(answered: Page) -> None:
    widths = "pictures => pictures.map(picture => picture.naturalWidth)"
    assert 0 not in answered.locator(".card img").evaluate_all(widths)


def test_files_that_are_no_pictures_or_too_large_are_refused_and_the_next_photo_is_searched(
    page: Page, shop: Shop, tmp_path: Path
) -> None:
    for name, (data, sentence) in BAD.items():
        upload(page, name, data)
        said = page.get_by_test_id("stAlert").filter(has_text=sentence)
        expect(said).to_contain_text(name)
        assert (said.inner_text()[-1], "Traceback" in page.content()) == (".", False)
    upload(page, "photo.jpg", shop.photo.read_bytes())
    expect(first_card(page)).to_contain_text(shop.expected_sku)
    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(50_000_000))
    page.locator("input[type=file]").set_input_files(large)
    expect(page.get_by_text("File must be")).to_be_visible()
    upload(page, "photo.heic", _heic(shop.photo))
    expect(page.get_by_alt_text("Your photo photo.heic")).to_be_visible()
    expect(first_card(page)).to_contain_text(shop.expected_sku)


def _heic(photo: Path) -> bytes:
    decoding.decode(photo.read_bytes())  # which teaches Pillow HEIC
    file = BytesIO()
    Image.open(photo).save(file, "HEIF")
    return file.getvalue()


@pytest.fixture
def no_index(shop: Shop) -> Iterator[None]:
    """The catalogue in its state before the first build."""
    with psycopg.connect(embedded_server.url(shop.home), autocommit=True) as connection:
        connection.execute("UPDATE index_build SET state = 'retired' WHERE state = 'published'")
        yield
        connection.execute("UPDATE index_build SET state = 'published' WHERE state = 'retired'")


@pytest.mark.usefixtures("no_index")
def test_without_an_index_the_product_is_found_and_the_page_shows_what_answered_and_why(
    page: Page, shop: Shop
) -> None:
    upload(page, "photo.jpg", shop.photo.read_bytes())
    expect(first_card(page)).to_contain_text(shop.expected_sku)
    assert re.search(r"Answered by exact: no .*(index|build)", explanation(page))


@pytest.fixture
def stopped(shop: Shop) -> Iterator[None]:
    embedded_server.stop(shop.home)
    yield
    embedded_server.start(shop.home, {"fsync": "off"})


@pytest.mark.usefixtures("stopped")
def test_while_the_database_is_stopped_a_search_is_an_error_message_and_works_once_it_is_back(
    page: Page, shop: Shop
) -> None:
    upload(page, "photo.jpg", shop.photo.read_bytes())
    socket_name = "/postgres/.s.PGSQL.5432"
    assert re.search(f"PostgreSQL cannot be reached: .*{socket_name}", error(page))
    embedded_server.start(shop.home, {"fsync": "off"})
    upload(page, "again.jpg", shop.photo.read_bytes())
    expect(first_card(page)).to_contain_text(shop.expected_sku)


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("path", ["health", "duplicates"])
def test_while_the_database_is_stopped_the_other_pages_show_an_error_message(
    open_page: Callable[..., Page], address: str, path: str
) -> None:
    page = open_page(f"{address}/{path}")
    expect(page.get_by_text("PostgreSQL cannot be reached").first).to_be_visible()
    assert "Traceback" not in page.content()
