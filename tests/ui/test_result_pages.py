"""Result pages of one query: which are kept, and how others are searched again."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.types import Match, Plan, Product, Query, SearchResult
from app.ui.components.result_pages import MAX_KEPT, ResultPages


@dataclass
class FakeSearch:
    """Finds ten products a page, named by their rank, of `products`; records its queries."""

    products: int = 1000
    queries: list[Query] = field(default_factory=list)

    def run(self, query: Query) -> SearchResult:
        self.queries.append(query)
        first = len(query.shown)
        matches = tuple(
            Match(n, Product(f"P{first + n}"), n, n, 0.5, "", b"")
            for n in range(min(query.k, self.products - first))
        )
        return SearchResult(matches, Plan("exact", "", "filter", ""))


def first_sku(pages: ResultPages, number: int, search: FakeSearch) -> str:
    return pages.result(number, search.run)[1].matches[0].product.sku


def test_a_page_starts_after_all_products_shown_before() -> None:
    pages, search = ResultPages(Query(sku="A", k=10, shown=("X",))), FakeSearch()
    assert [first_sku(pages, number, search) for number in (1, 2, 3)] == ["P1", "P11", "P21"]


def test_a_page_that_is_opened_first_is_the_same_page() -> None:
    pages, search = ResultPages(Query(sku="A", k=10)), FakeSearch()
    assert first_sku(pages, 3, search) == "P20"
    assert len(search.queries) == 3


def test_a_kept_page_is_not_searched_again() -> None:
    pages, search = ResultPages(Query(sku="A", k=10)), FakeSearch()
    first = pages.result(1, search.run)
    pages.result(2, search.run)
    assert pages.result(1, search.run) == first
    assert len(search.queries) == 2


def test_a_page_beyond_the_kept_ones_is_searched_with_the_same_query() -> None:
    pages, search = ResultPages(Query(sku="A", k=10)), FakeSearch()
    for number in range(1, MAX_KEPT + 3):
        pages.result(number, search.run)
    assert first_sku(pages, 1, search) == "P0"
    assert len(search.queries) == MAX_KEPT + 3
    assert search.queries[-1] == search.queries[0]


def test_a_page_after_the_last_is_the_last() -> None:
    pages, search = ResultPages(Query(sku="A", k=10)), FakeSearch(products=24)
    number, result = pages.result(200, search.run)
    assert (number, len(result.matches), len(search.queries)) == (3, 4, 3)
