"""The page in a real browser: a served shop, and browser tabs for tests."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.error import URLError
from urllib.request import urlopen

import psycopg
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from app.bootstrap import App
from app.config import Settings
from app.db.embedded import server as embedded_server
from ingest.demo import draw_catalogue
from ingest.load import load
from support.servers import free_port

BROWSERS = (Path("/usr/bin/chromium-headless-shell"), Path("/usr/bin/chromium"))
"""The shell draws pages as the browser does, in less processor time; few systems have it."""

CHROMIUM = next((path for path in BROWSERS if path.exists()), BROWSERS[-1])

SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SOON_MS = 120_000
"""Timeout in milliseconds for expected page content; generous for busy machines."""
expect.set_options(timeout=SOON_MS)

Scheme = Literal["light", "dark"]
ODD_TITLE = (
    "<b>Tea</b> *pot* $x^2$ :smile: :red[no] [x](javascript:alert(1)) "
    '<script>alert("2")</script> &amp; `code` ~~old~~ "quoted" \\ # 1'
)
ODD_BRAND = "*Kes* `trel` <i>&amp;</i> :smile: [x](y)"


@dataclass(frozen=True)
class Shop:
    """A catalogue with an index, a query photo, and the product that must be its first result."""

    home: Path
    photo: Path
    expected_sku: str


CUT_OFFS = """INSERT INTO calibration (model_id, same_product_distance, similar_distance)
    SELECT id, 0.3, 2 FROM model"""


ANOTHER_YEAR = """
WITH copy AS (
    INSERT INTO product (sku, title, brand, category, colour, year, price)
    SELECT sku || '-OLD', title, brand, category, colour, 1999, price FROM product
    WHERE sku = %(sku)s RETURNING id)
INSERT INTO product_picture SELECT copy.id, pp.picture_id, pp.position, pp.uri
FROM copy, product_picture AS pp JOIN product AS p ON p.id = pp.product_id
WHERE p.sku = %(sku)s"""


@pytest.fixture(scope="session")
def shop() -> Iterator[Shop]:
    """32 drawn products, the expected one with special characters in its title, on a separate
    server."""
    home = Path(tempfile.mkdtemp(prefix="lookalike-page-"))
    source = draw_catalogue(home / "demo", products=32)
    with (home / "demo" / "queries.csv").open(encoding="utf-8", newline="") as file:
        query = next(csv.DictReader(file))
    rename(source, query["expected_sku"], title=ODD_TITLE, brand=ODD_BRAND)
    embedded_server.start(home, {"fsync": "off"})
    with App(Settings(home=home, model="embedded")) as app:
        app.initialise()
        load(app.engine, app.catalog, app.encoders, app.limits, source)
        app.indexer.rebuild()
    with psycopg.connect(embedded_server.url(home), autocommit=True) as connection:
        connection.execute(CUT_OFFS)
        connection.execute(ANOTHER_YEAR, {"sku": query["expected_sku"]})
    yield Shop(home, home / "demo" / query["query"], query["expected_sku"])
    embedded_server.stop(home)
    shutil.rmtree(home)


def rename(source: Path, sku: str, **words: str) -> None:
    with source.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with source.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | (words if row["sku"] == sku else {}) for row in rows)


@contextmanager
def served(**settings: str) -> Iterator[str]:
    """`lookalike page` with these settings in its environment; yields its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"page_metrics_port": "0"} | settings
    process = subprocess.Popen(
        [Path(sys.executable).with_name("lookalike"), "page", "--port", str(port)],
        env=os.environ | {f"LOOKALIKE_{name.upper()}": value for name, value in settings.items()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _await(f"http://localhost:{port}/_stcore/health")
        yield f"http://localhost:{port}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # an orderly end takes seconds
        process.wait(300)


def _await(address: str) -> None:
    deadline = time.monotonic() + 300
    while True:
        try:
            urlopen(address, timeout=300).close()
            return
        except (URLError, TimeoutError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


@pytest.fixture(scope="session")
def web_port() -> int:
    """The port on which tests serve pictures to the page, besides those of web servers."""
    return free_port()


@pytest.fixture(scope="session")
def address(shop: Shop, web_port: int) -> Iterator[str]:
    with served(home=str(shop.home), private_addresses="1", link_ports=f"80,443,{web_port}") as url:
        yield url


@pytest.fixture(scope="session")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for screenshots."""
    named = os.environ.get("LOOKALIKE_TEST_ARTEFACTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("artefacts")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Tabs:
    """Browser tabs, used again after they were given back.

    They share the browser's cache and compiled code only: each page that is opened has an empty
    storage and a session of its own.
    """

    def __init__(self, browser: Browser) -> None:
        self._context = browser.new_context()
        self._context.add_init_script(
            "if (!opener) { localStorage.clear(); sessionStorage.clear(); }"
        )
        self._free: list[Page] = []
        self.answered: Page | None = None

    def open(self, url: str, width: int = 1400, scheme: Scheme = "light") -> Page:
        """A tab of this width that shows the rendered page of this URL."""
        page = self._free.pop() if self._free else self._context.new_page()
        page.set_default_timeout(SOON_MS)
        page.set_viewport_size({"width": width, "height": 1000})
        # With reduced motion nothing is drawn again and again for an animation.
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.goto(url)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        settled(page)
        return page

    def forget(self, cookie: str) -> None:
        """Delete a cookie of this name, which later pages would have."""
        self._context.clear_cookies(name=cookie)

    def empty(self) -> Page:
        """A new tab without a page, to be closed by the test."""
        page = self._context.new_page()
        page.set_default_timeout(SOON_MS)
        page.emulate_media(reduced_motion="reduce")
        return page

    def give_back(self, page: Page) -> None:
        """Let later tests use a tab, unless it is closed; they open it with an address of theirs.

        What a test emulates beyond width and colours stays with a tab: it closes such a tab.
        """
        if not page.is_closed():
            page.unroute_all()
            self._free.append(page)


class Chromium:
    """One browser for tests that follow each other: the first page of each costs seconds.

    It is closed before a test without one, because Playwright occupies the event loop of the
    thread.
    """

    def __init__(self) -> None:
        self._open = ExitStack()
        self._running: tuple[Browser, Tabs] | None = None

    def running(self) -> tuple[Browser, Tabs]:
        if self._running is None:
            playwright = self._open.enter_context(sync_playwright())
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
            self._open.callback(browser.close)
            self._running = browser, Tabs(browser)
        return self._running

    def close(self) -> None:
        self._running = None
        self._open.close()


CHROMIUM_OF_THIS_PROCESS = Chromium()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> Iterator[None]:
    try:
        return (yield)
    finally:
        if nextitem is None or nextitem.get_closest_marker("browser") is None:
            CHROMIUM_OF_THIS_PROCESS.close()


@pytest.fixture(scope="module")
def browser() -> Browser:
    """Chromium; without it these tests are skipped, or fail in CI."""
    if not CHROMIUM.exists():
        reason = f"no browser at {CHROMIUM}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return CHROMIUM_OF_THIS_PROCESS.running()[0]


@pytest.fixture(scope="module")
def tabs(browser: Browser) -> Tabs:
    return CHROMIUM_OF_THIS_PROCESS.running()[1]


@pytest.fixture
def open_page(tabs: Tabs) -> Iterator[Callable[..., Page]]:
    """Opens a URL in a tab of this width that shows nothing else."""
    pages: list[Page] = []

    def open_(url: str, *, width: int = 1400, scheme: Scheme = "light") -> Page:
        pages.append(tabs.open(url, width, scheme))
        return pages[-1]

    yield open_
    for page in pages:
        tabs.give_back(page)


@pytest.fixture
def page(open_page: Callable[..., Page], address: str) -> Page:
    return open_page(address)


@pytest.fixture(scope="module")
def answered(tabs: Tabs, address: str, shop: Shop) -> Page:
    """A page with the results of the query photo, for tests that do not change it."""
    if tabs.answered is None:
        page = tabs.open(address)
        search_photo(page, shop)
        tabs.answered = page
    return tabs.answered


def upload(page: Page, name: str, data: bytes) -> None:
    file = {"name": name, "mimeType": "application/octet-stream", "buffer": data}
    widget = page.locator("input[type=file]")
    expect(widget).to_have_count(1)  # after an upload another takes the place of the widget
    widget.set_input_files(file)  # type: ignore[arg-type]


def search_photo(page: Page, shop: Shop) -> None:
    """Search with the query photo, and wait for the results."""
    upload(page, "photo.jpg", shop.photo.read_bytes())
    expect(page.locator(".st-key-reference")).to_be_visible()
    settled(page)
    expect(first_card(page)).to_contain_text(shop.expected_sku)


def settled(page: Page) -> None:
    """Wait until the script has finished and the page is rendered completely."""
    still = page.locator(".stApp[data-test-script-state=notRunning]")
    expect(still).to_be_visible()
    expect(page.locator("[data-stale=true]")).to_have_count(0)


def skus(page: Page) -> list[str]:
    """The skus of the cards, in order."""
    return page.locator(".st-key-results .card .last span:last-child").all_inner_texts()


def first_card(page: Page) -> Locator:
    card = page.locator(".st-key-results .card").first
    expect(card).to_be_visible()
    settled(page)
    return card


def overflows(page: Page) -> bool:
    """Whether the page is wider than the window."""
    wide: bool = page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    return wide


def error(page: Page) -> str:
    """The error message on the page."""
    alert = page.get_by_test_id("stAlert")
    expect(alert).to_be_visible()
    return alert.inner_text()


def explanation(page: Page) -> str:
    line = page.get_by_text("Answered by")
    if not line.is_visible():
        page.get_by_text("Search details").click()
    expect(line).to_be_visible()
    return line.inner_text()
