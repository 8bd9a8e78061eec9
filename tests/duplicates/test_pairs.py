"""Pairs are folded as sets of any size are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.duplicates.evidence import FoldCuts, PictureEvidence
from app.duplicates.folding import Folding
from app.duplicates.groups import FoldCandidate
from app.duplicates.pairs import fold_pairs, is_simple
from app.search import dedup
from app.search.dedup import ScoredHit, deduplicate
from app.types import Hit, Product, Query, Verdict

TITLES = (
    "Kestrel Marria blazer", "Marria Kestrel blazer", "Kestrel Maria blazer",
    "Kestrel Marria blazer 2019", "Kestrel Marria blazer XL", "Kestrel Marr ia blazer",
    "navy blazer", "blazer Kestrel navy", "Corano blazer", "", "blazer " * 45,
)  # fmt: skip
PRODUCTS = st.builds(
    Product,
    st.just(""),
    st.sampled_from(TITLES),
    st.sampled_from(["Kestrel", None]),
    st.sampled_from(["Blazer", "Coat"]),
    st.sampled_from(["navy", None]),
    st.sampled_from([2019, 2020, None]),
)
ANGLES = st.lists(st.sampled_from([0, 5, 20, 35, 50, 90]), max_size=2)
CUTS = FoldCuts(0.2)


def numbered(products: Sequence[Product]) -> list[Product]:
    fields = ("title", "brand", "category", "colour", "year", "price", "currency", "attributes")
    return [
        Product(f"P{number}", *(getattr(each, name) for name in fields))
        for number, each in enumerate(products)
    ]


def evidence(products: Sequence[Product], angles: Sequence[Sequence[float]]) -> PictureEvidence:
    """Pictures in the plane, at these angles."""
    turned = [np.radians(each) for each in angles]
    vectors = {
        product.sku: np.stack([np.cos(each), np.sin(each)], axis=1).astype(np.float16)
        for product, each in zip(products, turned, strict=True)
        if len(each)
    }
    return PictureEvidence(vectors, CUTS)


@given(
    st.tuples(PRODUCTS, PRODUCTS), st.tuples(ANGLES, ANGLES),
    st.tuples(*2 * [st.sampled_from([0.5, 0.7, math.inf])]),
)  # fmt: skip
def test_a_pair_is_one_as_it_is_among_others(
    products: tuple[Product, Product],
    angles: tuple[list[float], list[float]],
    similarities: tuple[float, float],
) -> None:
    pictures = evidence(own := numbered(products), angles)
    if not is_simple(own):
        return
    first, second = map(FoldCandidate, own, similarities)
    [group] = fold_pairs([(first, second)], 0.9, lambda _: pictures)
    groups = Folding([first, second], [], 0.9, lambda _: pictures).groups()
    assert groups == [group] if group else len(groups) == 2


@given(st.lists(st.tuples(PRODUCTS, ANGLES, st.booleans()), max_size=9), st.integers(1, 9))
@example(
    [
        (Product("", "Marria", category=category, year=year), [0], earlier)
        for category, year, earlier in (
            ("Coat", 2020, False), ("Hat", 2020, False), ("Hat", 2019, True), ("Coat", 2020, True)
        )
    ],
    3,
)  # fmt: skip # what is dropped has the same order
def test_a_page_is_the_same_with_pairs_as_without(
    drawn: list[tuple[Product, list[float], bool]], k: int
) -> None:
    products = numbered([product for product, _, _ in drawn])
    pictures = evidence(products, [angles for _, angles, _ in drawn])
    scored = [
        ScoredHit(Hit(number, number, number / 10), product, 1 - number / 10)
        for number, product in enumerate(products)
    ]
    shown = [each for each, (_, _, earlier) in zip(scored, drawn, strict=True) if earlier]
    hits = [each for each, (_, _, earlier) in zip(scored, drawn, strict=True) if not earlier]

    def page() -> dedup.DedupResult:
        return deduplicate(
            hits, Query(fold=True), shown=shown, min_spelling_similarity=0.9, k=k,
            load_pictures=lambda _: pictures,
        )  # fmt: skip

    found = page()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dedup, "is_simple", lambda _: False)
        assert found == page()


def test_identifiers_long_titles_and_third_products_are_left_to_sets() -> None:
    plain, other = numbered([Product("", "Marria"), Product("", "Marria")])
    assert is_simple([plain, other])
    assert not is_simple([plain]) and not is_simple([plain, other, plain])
    assert not is_simple([plain, Product("P9", "Marria", attributes={"gtin": "4006381333931"})])
    assert not is_simple([plain, Product("P9", "Marria " * 45)])


def test_a_verdict_on_a_page_leaves_its_pairs_to_sets() -> None:
    products = numbered(
        [Product("", "Kestrel Marria blazer"), Product("", "Marria Kestrel blazer")]
    )
    scored = [
        ScoredHit(Hit(number, number, 0.1), product, 0.9) for number, product in enumerate(products)
    ]

    def kept(*verdicts: Verdict) -> int:
        result = deduplicate(
            scored, Query(fold=True), verdicts=verdicts, min_spelling_similarity=0.9,
            load_pictures=lambda _: evidence(products, [[0], [0]]),
        )  # fmt: skip
        return len(result.kept)

    assert kept() == 1 and kept(Verdict("P0", "P1", False)) == 2
