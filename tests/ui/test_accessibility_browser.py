"""WCAG 2.2 AA by axe-core: every page, in both themes, on a wide screen and on a phone."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from support.browsing import Scheme, Shop, search_photo, settled

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("search_page")]

AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


def violations(page: Page) -> list[Any]:
    """The rules that what is on the page breaks, each with the elements and the reasons."""
    settled(page)
    page.evaluate(AXE)
    result = page.evaluate("(rules) => axe.run(document, { runOnly: rules })", RULES)
    assert result["passes"]  # it ran
    return [
        (rule["id"], [(node["target"], node["failureSummary"]) for node in rule["nodes"]])
        for rule in result["violations"]
    ]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", 390)])
def test_no_page_breaks_a_rule_of_wcag_aa(
    open_page: Callable[..., Page], address: str, shop: Shop, scheme: Scheme, width: int
) -> None:
    page = open_page(address, width=width, scheme=scheme)
    expect(page.locator(".card").first).to_be_visible()
    assert violations(page) == []
    search_photo(page, shop)
    page.get_by_text("Search details").click()
    assert violations(page) == []
    page.get_by_role("button", name="Options", exact=True).click()
    expect(page.get_by_role("radio", name="24")).to_be_visible()
    assert violations(page) == []
    page.keyboard.press("Escape")
    for place in (0, 1):
        page.locator("[class*=st-key-pin-] button").nth(place).click()
        expect(page.get_by_role("button", name="Unpin ")).to_have_count(place + 1)
    dialog = page.get_by_role("dialog")
    for button in ("Pinned (2)", "Details of"):
        page.get_by_role("button", name=button).first.click()
        expect(dialog.get_by_role("button").first).to_be_visible()
        assert violations(page) == []
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
    for path in ("duplicates", "health", "index"):
        page = open_page(f"{address}/{path}", width=width, scheme=scheme)
        assert violations(page) == []
