"""WCAG 2.2 AA by axe-core: every page, in both themes and languages, on a screen and on a phone.

Each of these is seen once, and each page without results or with an error in one theme; with
LOOKALIKE_TEST_AXE=all everything in all eight combinations.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from importlib.resources import files
from itertools import product
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from app.ui.languages import COOKIE, catalogue, languages
from support.browsing import Scheme, Shop, Tabs, search_photo, settled

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("search_page")]

EMPTY_OR_FAILED = ("?text=qqzz", "?category=None", "?shared=gone", "?link=ftp://x/y.png", "?page=9")
"""Addresses of pages that show nothing, or an error."""

AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


SEEN = [
    ("en", "light", 1400, EMPTY_OR_FAILED[::2]),
    ("de", "dark", 390, EMPTY_OR_FAILED[1::2]),
]
if os.environ.get("LOOKALIKE_TEST_AXE") == "all":
    SEEN = list(product(("en", "de"), ("light", "dark"), (1400, 390), (EMPTY_OR_FAILED,)))


def violations(page: Page) -> list[Any]:
    """The rules that what is on the page breaks, each with the elements and the reasons."""
    settled(page)
    if not page.evaluate("Boolean(window.axe)"):
        page.evaluate(AXE)
    result = page.evaluate("(rules) => axe.run(document, { runOnly: rules })", RULES)
    assert result["passes"]  # it ran
    return [
        (rule["id"], [(node["target"], node["failureSummary"]) for node in rule["nodes"]])
        for rule in result["violations"]
    ]


@pytest.fixture(autouse=True)
def no_language_kept(tabs: Tabs) -> Iterator[None]:
    yield
    tabs.forget(COOKIE)


def chosen(page: Page, language: str) -> None:
    """Choose a language below the page; later pages have it too, from their first paint."""
    choice = page.locator("[class*=st-key-language-in-]")
    choice.scroll_into_view_if_needed()  # to scroll later would close the list
    choice.get_by_role("button").click()
    page.get_by_role("option").nth(languages().index(language)).click()
    expect(page.locator(f"html[lang={language}]")).to_have_count(1)
    settled(page)


@pytest.mark.parametrize(("language", "scheme", "width", "addresses"), SEEN)
def test_no_page_breaks_a_rule_of_wcag_aa(
    open_page: Callable[..., Page],
    address: str,
    shop: Shop,
    language: str,
    scheme: Scheme,
    width: int,
    addresses: tuple[str, ...],
) -> None:
    _ = catalogue(language).gettext
    page = open_page(address, width=width, scheme=scheme)
    chosen(page, language)
    expect(page.get_by_role("button", name=_("Upload"), exact=True)).to_be_visible()
    expect(page.locator(".card").first).to_be_visible()
    assert violations(page) == []
    search_photo(page, shop)
    page.get_by_text(_("Search details")).click()
    assert violations(page) == []
    page.get_by_role("button", name=_("Options"), exact=True).click()
    expect(page.get_by_role("radio", name="24")).to_be_visible()
    assert violations(page) == []
    page.keyboard.press("Escape")
    pinned = re.compile(_("*Unpin {name}*").strip("*").format(name=".*"))
    for place in (0, 1):
        page.locator("[class*=st-key-pin-] button").nth(place).click()
        expect(page.locator("[class*=st-key-pin-]", has_text=pinned)).to_have_count(place + 1)
    dialog = page.get_by_role("dialog")
    for button in (".st-key-pinned", "[class*=st-key-details-]"):
        page.locator(f"{button} button").first.click()
        expect(dialog.get_by_role("button").first).to_be_visible()
        assert violations(page) == []
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
    page.locator(".st-key-share").get_by_role("button").first.click()
    expect(page.locator(".st-key-shared_link")).to_be_visible()
    assert violations(page) == []
    for path in ("duplicates", "health", "index", *addresses):
        page = open_page(f"{address}/{path}", width=width, scheme=scheme)
        assert page.locator(f"html[lang={language}]").count() == 1
        assert violations(page) == []
