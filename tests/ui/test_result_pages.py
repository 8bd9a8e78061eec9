"""Pages of one query: what was looked at is kept, and what is not is asked for in the same way."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from app.types import Match, Plan, Product, Query, SearchResult
from app.ui.components import result_pages
from app.ui.components.result_pages import MAX_KEPT, ResultPages


@dataclass
class Shelf:
    """Ten products a page, named by their place; remembers what it was asked."""

    asked: list[Query] = field(default_factory=list)

    def search(self, query: Query) -> SearchResult:
        self.asked.append(query)
        first = len(query.shown)
        matches = tuple(
            Match(n, Product(f"P{first + n}"), n, n, 0.5, "", b"") for n in range(query.k)
        )
        return SearchResult(matches, Plan("exact", "", "filter", ""))


@pytest.fixture(autouse=True)
def no_scrolling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside a page there is nothing to scroll."""
    monkeypatch.setattr(result_pages, "request_scroll", lambda: None)


def first_sku(result: SearchResult) -> str:
    return result.matches[0].product.sku


def test_a_page_goes_on_after_all_that_was_shown() -> None:
    pages, shelf = ResultPages(Query(sku="A", k=10, shown=("X",))), Shelf()
    seen = []
    for _ in range(3):
        seen.append(first_sku(pages.result(shelf.search)))
        pages.turn(1)
    assert seen == ["P1", "P11", "P21"]


def test_a_page_that_is_kept_is_not_searched_again() -> None:
    pages, shelf = ResultPages(Query(sku="A", k=10)), Shelf()
    first = pages.result(shelf.search)
    pages.turn(1)
    pages.result(shelf.search)
    pages.turn(-1)
    assert pages.result(shelf.search) is first
    assert len(shelf.asked) == 2


def test_only_so_many_pages_are_kept_and_others_asked_for_as_before() -> None:
    pages, shelf = ResultPages(Query(sku="A", k=10)), Shelf()
    for _ in range(MAX_KEPT + 2):
        pages.result(shelf.search)
        pages.turn(1)
    pages.turn(-MAX_KEPT - 2)
    assert first_sku(pages.result(shelf.search)) == "P0"
    assert len(shelf.asked) == MAX_KEPT + 3
    assert shelf.asked[-1] == shelf.asked[0]


def test_there_is_no_page_before_the_first() -> None:
    pages = ResultPages(Query(sku="A", k=10))
    pages.turn(-1)
    assert pages.number == 0


def test_two_clicks_at_once_open_one_page() -> None:
    """The second comes before the page that the first one opened was searched for."""
    pages, shelf = ResultPages(Query(sku="A", k=10)), Shelf()
    pages.result(shelf.search)
    pages.turn(1)
    pages.turn(1)
    assert pages.number == 1
