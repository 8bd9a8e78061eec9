"""The page of a shop in docs/examples, in a real browser, on another origin than the API."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from api.conftest import fill
from app.bootstrap import App
from app.config import Settings
from app.types import Product
from support.api_client import ApiClient, api_served
from support.colours import choose_colours
from support.paths import REPO
from support.servers import wait_until
from support.shop import add_products

pytestmark = pytest.mark.browser

EXAMPLE = REPO / "docs" / "examples" / "similar-products.html"
TITLE = '<img src=x onerror="document.title=1">'


class ShopPage:
    """The example with other values of its attributes, on a server of its own."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.html = EXAMPLE.read_text(encoding="utf-8")

    def fill_in(self, **attributes: str) -> None:
        for name, value in attributes.items():
            head, _, tail = self.html.partition(f' data-{name}="')
            self.html = f'{head} data-{name}="{value}"{tail.partition(chr(34))[2]}'


@pytest.fixture
def shop_page() -> Iterator[ShopPage]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page.html.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        page = ShopPage(f"http://127.0.0.1:{server.server_address[1]}")
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        try:
            yield page
        finally:
            server.shutdown()


@pytest.fixture
def served(filled_database: Callable[..., str], tmp_path: Path) -> Iterator[tuple[App, ApiClient]]:
    settings = Settings(home=tmp_path, database_url=filled_database(fill))
    with App(settings, choose=choose_colours) as app, api_served(app) as client:
        add_products(app, [(Product("A/1", TITLE, price=Decimal("12.50"), currency="EUR"), [3])])
        yield app, client


@pytest.fixture
def tab(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    page.set_default_timeout(120_000)
    yield page
    context.close()


def test_a_page_of_a_shop_shows_similar_products(
    served: tuple[App, ApiClient], shop_page: ShopPage, tab: Page
) -> None:
    app, client = served
    expected = client.get("/v1/products/P0003/similar?k=4").json()["matches"]
    assert expected[0]["sku"] == "A/1"  # it shows the same photo
    key = app.api_keys.create("search", origins=[shop_page.origin])
    shop_page.fill_in(api=client.url, sku="P0003", count="4", key=key)
    tab.goto(shop_page.origin)
    section = tab.locator(".similar")
    expect(section).to_be_visible()
    titles = section.locator(".title").all_inner_texts()
    assert titles == [match["title"] for match in expected]
    assert titles[0] == TITLE and tab.title() == "Desk lamp"  # data is text
    assert section.locator(".price").all_inner_texts() == ["€12.50"]
    assert section.locator("a").first.get_attribute("href") == "/products/A%2F1"
    for image in section.locator("img").all():
        image.scroll_into_view_if_needed()
        expect(image).to_have_js_property("complete", True)
        assert image.evaluate("each => each.naturalWidth") > 0


def test_a_click_on_a_product_of_the_page_is_told_to_the_api(
    served: tuple[App, ApiClient], shop_page: ShopPage, tab: Page
) -> None:
    app, client = served
    key = app.api_keys.create("search", origins=[shop_page.origin])
    shop_page.fill_in(api=client.url, sku="P0003", count="4", key=key)
    tab.goto(shop_page.origin)
    tab.locator(".similar a").nth(1).click()

    def told() -> list[tuple[object, ...]]:
        """The clicks that were stored: the page is left before the answer to one arrives."""
        with app.engine.connect() as connection:
            rows = connection.exec_driver_sql(
                "SELECT action, rank = 2, told_position, sku <> 'A/1' FROM analytics.clicks"
            )
            return [tuple(row) for row in rows]

    wait_until(lambda: bool(told()), "no click is told")
    app.events.close()  # which writes the search
    assert told() == [("click", True, 2, True)]


def test_without_a_valid_key_the_page_is_shown_without_the_section(
    served: tuple[App, ApiClient], shop_page: ShopPage, tab: Page
) -> None:
    app, client = served
    key = app.api_keys.create("search", origins=["https://another.example"])
    shop_page.fill_in(api=client.url, sku="P0003", key=key)
    with tab.expect_console_message(lambda message: "Similar products" in message.text):
        tab.goto(shop_page.origin)
    expect(tab.locator("h1")).to_be_visible()
    expect(tab.locator(".similar")).to_be_hidden()


def test_the_example_is_short_and_loads_nothing_but_the_api() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    assert "src=" not in text and "@import" not in text and "innerHTML" not in text
