"""In which order pairs are reviewed: by their evidence, then by the distance of their pictures."""

from __future__ import annotations

from typing import Any

import pytest

from app.duplicates.pair_order import PairEvidence, WaitingPair, evidence
from app.types import Product


def of(
    a: Product, b: Product, *, shares_picture: bool = False, near: bool = True
) -> tuple[PairEvidence, PairEvidence]:
    """The evidence of a pair, either way round."""
    return tuple(  # type: ignore[return-value]
        evidence(*pair, shares_picture=shares_picture, near=near, min_spelling_similarity=0.9)
        for pair in ((a, b), (b, a))
    )


def product(title: str, **fields: Any) -> Product:
    return Product(title, title=title, **fields)


@pytest.mark.parametrize(
    ("a", "b", "found"),
    [
        (product("Oak chair 2019"), product("Oak chair 2021"), PairEvidence.PICTURE_AND_WORDS),
        (product("Oak chair carved"), product("Oak chair carved tall"), PairEvidence.LIKE_TITLES),
        (product("Oak chair carved"), product("Silk shirt"), PairEvidence.NEAR_PICTURES),
        (
            product("Shirt slim fit", colour="red"), product("Shirt slim fit long", colour="green"),
            PairEvidence.OTHER_FIELDS,
        ),
        (
            product("Shirt slim fit", attributes={"gtin": "4006381333931"}),
            product("Shirt slim fit long", attributes={"ean": "96385074"}),
            PairEvidence.OTHER_FIELDS,
        ),
        (product("Silk shirt", brand="Kestrel"), product("Blouse"), PairEvidence.NEAR_PICTURES),
        (Product("A"), Product("B"), PairEvidence.NEAR_PICTURES),
    ],
)  # fmt: skip
def test_words_order_pairs_with_near_pictures(a: Product, b: Product, found: PairEvidence) -> None:
    assert of(a, b) == (found, found)


def test_a_common_picture_file_is_stronger_than_words_without_near_pictures() -> None:
    words = of(product("Oak chair 2019"), product("Oak chair 2021"), near=False)
    file = of(product("Oak chair"), product("Silk shirt"), shares_picture=True)
    assert set(words) == {PairEvidence.WORDS} and set(file) == {PairEvidence.PICTURE_FILE}
    assert file < words


def test_what_differs_makes_a_common_picture_file_weak() -> None:
    """It may be a placeholder, or a photo of all colours."""
    pair = of(product("Shirt", colour="red"), product("Coat", colour="blue"), shares_picture=True)
    assert set(pair) == {PairEvidence.OTHER_FIELDS}


def test_words_that_describe_many_articles_are_the_weakest_where_pictures_are_apart() -> None:
    pair = of(product("Black skirt 2019"), product("Black skirt 2021"), near=False)
    assert set(pair) == {PairEvidence.GENERIC_WORDS} and pair > (PairEvidence.OTHER_FIELDS,)


def test_of_equal_evidence_the_nearest_comes_first() -> None:
    pairs = [
        WaitingPair(PairEvidence.NEAR_PICTURES, 0.01, ("A", "B")),
        WaitingPair(PairEvidence.LIKE_TITLES, 0.09, ("C", "D")),
        WaitingPair(PairEvidence.LIKE_TITLES, 0.02, ("E", "F")),
    ]
    assert [each.skus[0] for each in sorted(pairs)] == ["E", "C", "A"]
    assert [each.is_weak for each in pairs] == [True, False, False]
