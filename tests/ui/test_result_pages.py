"""Result pages of one query: which are kept, and how others are searched again."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from app.types import Match, Plan, Product, Query, SearchResult
from app.ui.components import result_pages
from app.ui.components.result_pages import MAX_KEPT, ResultPages


@dataclass
class FakeSearch:
    """Finds ten products a page, named by their rank; records its queries."""

    queries: list[Query] = field(default_factory=list)

    def run(self, query: Query) -> SearchResult:
        self.queries.append(query)
        first = len(query.shown)
        matches = tuple(
            Match(n, Product(f"P{first + n}"), n, n, 0.5, "", b"") for n in range(query.k)
        )
        return SearchResult(matches, Plan("exact", "", "filter", ""))


@pytest.fixture(autouse=True)
def no_scrolling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a page there is nothing to scroll."""
    monkeypatch.setattr(result_pages, "request_scroll", lambda: None)


def first_sku(result: SearchResult) -> str:
    return result.matches[0].product.sku


def test_a_page_starts_after_all_products_shown_before() -> None:
    pages, search = ResultPages(Query(sku="A", k=10, shown=("X",))), FakeSearch()
    seen = []
    for _ in range(3):
        seen.append(first_sku(pages.result(search.run)))
        pages.turn(1)
    assert seen == ["P1", "P11", "P21"]


def test_a_kept_page_is_not_searched_again() -> None:
    pages, search = ResultPages(Query(sku="A", k=10)), FakeSearch()
    first = pages.result(search.run)
    pages.turn(1)
    pages.result(search.run)
    pages.turn(-1)
    assert pages.result(search.run) is first
    assert len(search.queries) == 2


def test_a_page_beyond_the_kept_ones_is_searched_with_the_same_query() -> None:
    pages, search = ResultPages(Query(sku="A", k=10)), FakeSearch()
    for _ in range(MAX_KEPT + 2):
        pages.result(search.run)
        pages.turn(1)
    pages.turn(-MAX_KEPT - 2)
    assert first_sku(pages.result(search.run)) == "P0"
    assert len(search.queries) == MAX_KEPT + 3
    assert search.queries[-1] == search.queries[0]


def test_there_is_no_page_before_the_first() -> None:
    pages = ResultPages(Query(sku="A", k=10))
    pages.turn(-1)
    assert pages.number == 0


def test_two_clicks_at_once_open_one_page() -> None:
    """The second click arrives before the page of the first one was searched."""
    pages, search = ResultPages(Query(sku="A", k=10)), FakeSearch()
    pages.result(search.run)
    pages.turn(1)
    pages.turn(1)
    assert pages.number == 1
