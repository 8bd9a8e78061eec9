"""The pages for duplicates, ingests and the index, in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from playwright.sync_api import Page, expect

from app.bootstrap import App
from app.db.embedded import server as embedded_server
from app.types import Query
from support.browsing import overflows, served
from support.colours import photo
from support.shop import add, numbered
from support.sources import ingest, write_csv, write_photos

# One process runs all tests of pages: they share a browser.
pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("search_page")]

Open = Callable[..., Page]
DATABASE = f"pages_{uuid4().hex[:12]}"
"""The database that the served pages use; each test begins with an empty catalogue in it."""
ODD = (
    "<b>Tea</b> *pot* $x$ :smile: :red[no] [x](javascript:alert(1)) <script>alert(2)</script> &amp;"
)


@pytest.fixture(scope="module")
def pages(server_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the pages."""
    home = tmp_path_factory.mktemp("pages")
    with served(home=str(home), database_url=embedded_server.url(server_home, DATABASE)) as url:
        yield url
    with administration(server_home) as connection:
        connection.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)".encode())


@pytest.fixture
def database_url(server_home: Path, template: str) -> str:
    """The URL of a new database under the name that the pages know."""
    with administration(server_home) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)".encode())
        connection.execute(f"CREATE DATABASE {DATABASE} TEMPLATE {template}".encode())
    return embedded_server.url(server_home, DATABASE)


def administration(home: Path) -> psycopg.Connection:
    return psycopg.connect(embedded_server.url(home, "postgres"), autocommit=True)


def found(app: App, query: Query) -> list[tuple[str, list[str]]]:
    """The products that a search finds, each with those folded into it."""
    matches = app.search.search(query).matches
    return [(m.product.sku, [fold.product.sku for fold in m.folded]) for m in matches]


def test_verdicts_apply_to_every_later_search(app: App, open_page: Open, pages: str) -> None:
    add(app, {"A": [1, 3], "B": [1]}, attributes={"note": ODD})
    add(app, {"C": [2], "D": [2]}, brand=ODD)
    with app.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE product SET title = %(odd)s WHERE sku IN ('A', 'B')",
                                   {"odd": ODD})  # fmt: skip
    query = Query(picture=photo(1), k=2, fold=True)
    assert found(app, query) == [("A", ["B"]), ("C", [])]
    page = open_page(f"{pages}/duplicates", width=390)
    name = page.get_by_role("textbox", name="Your name")
    name.fill(ODD[:60])
    name.press("Enter")
    expect(page.get_by_role("button", name="Same product")).to_be_visible()
    assert page.locator(".title dd").all_inner_texts() == [ODD, ODD]
    place = page.locator(".st-key-pair").bounding_box()
    page.keyboard.press("d")
    expect(page.get_by_text("A and B are different products.")).to_be_visible()
    expect(page.get_by_role("button", name="Undo")).to_be_visible()
    assert page.locator(".st-key-pair").bounding_box()["y"] == place["y"]  # type: ignore[index]
    page.get_by_role("button", name="Same product").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("C and D are the same product.")).to_be_visible()
    listed = page.get_by_test_id("stMarkdown").filter(has_text="differ").first
    assert f"{ODD} (A) and {ODD} (B) differ" in listed.inner_text()
    assert ODD[:60] in listed.inner_text()
    assert found(app, query) == [("A", []), ("B", [])]
    assert found(app, Query(picture=photo(2), k=3, fold=True))[0] == ("C", ["D"])


def test_on_a_phone_both_products_are_side_by_side_without_overflow(
    app: App, open_page: Open, pages: str
) -> None:
    add(app, {"A": [1], "B": [1]}, brand="Unbrokenword" * 20)
    page = open_page(f"{pages}/duplicates", width=390)
    figures = page.locator(".pair figure")
    expect(figures).to_have_count(2)
    tops = [figure.bounding_box()["y"] for figure in figures.all()]  # type: ignore[index]
    assert (tops[0] == tops[1], overflows(page)) == (True, False)


def test_rejects_are_shown_literally_and_downloaded(
    app: App, open_page: Open, pages: str, tmp_path: Path
) -> None:
    write_photos(tmp_path, [1])
    rows = [{"sku": "A", "title": "lamp", "images": "1.png"},
            {"sku": f"C {ODD}", "title": "lamp", "images": "none.png"}]  # fmt: skip
    ingest(app, write_csv(tmp_path / "catalogue.csv", rows))
    page = open_page(f"{pages}/health")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download refused rows").click()
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert ODD in text and "none.png" in text
    cells = page.get_by_test_id("stDataFrame").last.locator("[role=gridcell]")
    expect(cells.filter(has_text=f"C {ODD}")).to_have_count(1)


def test_a_rebuild_shows_its_steps_and_continues_after_a_reload(
    app: App, open_page: Open, pages: str, database_url: str
) -> None:
    add(app, numbered(5))
    page = open_page(f"{pages}/index")
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE embedding IN SHARE ROW EXCLUSIVE MODE")
        other.execute("LOCK TABLE index_chunk IN ACCESS EXCLUSIVE MODE")
        page.get_by_role("button", name="Rebuild the index").click()
        writing = page.get_by_text("Writing the index file …")
        expect(writing).to_be_visible()
        page.reload()
        expect(writing).to_be_visible()
    expect(page.get_by_text("Build 1: 5 pictures in")).to_be_visible()
    expect(page.get_by_text("build 1", exact=True)).to_be_visible()
    assert "Traceback" not in page.content()
