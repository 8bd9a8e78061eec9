"""Near-duplicate distances are inclusive, and what stays keeps its order."""

from __future__ import annotations

from app.search.dedup import LIKE_QUERY, ScoredHit, deduplicate
from app.types import Hit, Product, Query


def hit(number: int, distance: float) -> ScoredHit:
    product = Product(f"P{number}", title=f"title {number}")
    return ScoredHit(Hit(number, number, distance), product, 1 - distance)


def test_a_hit_exactly_at_the_distance_is_a_near_duplicate_of_the_query() -> None:
    hits = [hit(1, 0.0), hit(2, 0.25), hit(3, 0.5)]
    result = deduplicate(
        hits, Query(sku="Q", near_query=0.25, fold=False), min_spelling_similarity=1
    )
    assert [dropped.sku for dropped in result.dropped] == ["P1", "P2"]
    assert {dropped.rule for dropped in result.dropped} == {LIKE_QUERY}
    assert [kept.product.sku for kept, _ in result.kept] == ["P3"]


def test_folded_results_stay_best_first() -> None:
    hits = [hit(1, 0.1), hit(2, 0.2), hit(3, 0.3)]
    result = deduplicate(hits, Query(sku="Q", fold=True), min_spelling_similarity=1)
    assert [kept.product.sku for kept, _ in result.kept] == ["P1", "P2", "P3"]


def test_only_the_matches_of_the_page_get_the_products_folded_into_them() -> None:
    titles = ["Marria lamp", "Corano lamp", "Marria lamp", "Corano lamp"]
    hits = [
        ScoredHit(Hit(n, n, n / 10), Product(f"P{n}", title), 1 - n / 10)
        for n, title in enumerate(titles)
    ]

    def folded(k: int, complete: bool) -> list[int]:
        result = deduplicate(
            hits, Query(fold=True), min_spelling_similarity=0.9, k=k, complete=complete
        )
        return [len(folded) for _, folded in result.kept]

    assert folded(2, False) == folded(9, True) == [1, 1]
    assert folded(1, False) == [1, 0]
    assert folded(3, False) == [0, 0], "more hits will be asked for"
