"""Folding: each rule alone, the effect of verdicts, and independence of order."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.duplicates.evidence import PictureEvidence
from app.duplicates.folding import Folding, fold
from app.duplicates.groups import DuplicateGroup, FoldCandidate
from app.duplicates.normalization import identity
from app.duplicates.report import DuplicateReport, compare
from app.duplicates.word_rules import RULES, same_product
from app.types import Product, Verdict

TYPO = 0.9


def product(sku: str, title: str, **fields: object) -> Product:
    known = {"brand": "Kestrel", "category": "Blazer", "colour": "navy", "year": 2020}
    return Product(sku, title, **(known | fields))  # type: ignore[arg-type]


def rule(
    one: str, other: str, min_spelling_similarity: float = TYPO, **fields: object
) -> str | None:
    return same_product(product("A", one), product("B", other, **fields), min_spelling_similarity)


def candidates(*titles: str, **fields: object) -> list[FoldCandidate]:
    """A, B, C, ... with falling similarity."""
    return [
        FoldCandidate(product(chr(65 + n), title, **fields), 1 - n / 100)
        for n, title in enumerate(titles)
    ]


def one_picture(skus: Sequence[str]) -> PictureEvidence:
    """All products show the same picture."""
    return PictureEvidence({sku: np.ones((1, 2), np.float32) for sku in skus})


def groups(found: list[DuplicateGroup]) -> set[frozenset[str]]:
    return {
        frozenset([group.keeper.sku, *(fold.candidate.sku for fold in group.folded)])
        for group in found
    }


def skus(found: list[DuplicateGroup]) -> set[str]:
    return {"".join(sorted(group)) for group in groups(found)}


def test_the_rules_are_named_and_in_order() -> None:
    names = [rule.name for rule in RULES]
    assert names == ["same words", "another year", "another size", "typo"]


@pytest.mark.parametrize(
    ("name", "one", "other", "fields"),
    [
        ("same words", "Marria blazer", "BLAZERS, Marria", {}),
        ("same words", "Kestrel Marria blazer", "Marria blazer", {}),
        ("another year", "Marria blazer", "Marria blazer", {"year": 2021}),
        ("another year", "Marria blazer 2020", "Marria blazer 2021", {"year": 2021}),
        ("another year", "Marria blazer", "Marria blazer", {"year": None}),
        ("another size", "Marria blazer S", "Marria blazer XL", {}),
        ("another size", "Marria blazer", "Marria blazer size 42", {"year": 2021}),
        ("typo", "Waterproof blazer", "Waterprof blazer", {}),
        ("typo", "Marria blazer", "Marria blazr", {}),
        ("typo", "Marria blazer", "Marira blazer", {}),
        ("typo", "Marria blazer S", "Marira blazer L", {"year": 2021}),
        ("typo", "Kestrel Marria blazer", "Kestrl Marria blazer", {}),
        ("typo", "Sunflower blazer", "Sun flower blazer", {}),
        ("typo", "Waterproof blazer", "Watreproof blazer", {}),
    ],
)
def test_a_rule_folds(name: str, one: str, other: str, fields: dict[str, object]) -> None:
    assert rule(one, other, **fields) == name


@pytest.mark.parametrize("number", range(len(RULES)), ids=[rule.name for rule in RULES])
def test_each_rule_includes_the_rules_before_it(number: int) -> None:
    found = [("Marria", 2020), ("Marria", 2021), ("Marria XL", 2020), ("Marira", 2020)]
    a = identity(product("A", "Marria"))
    holds = [RULES[number].holds(a, identity(product("B", t, year=y)), TYPO) for t, y in found]
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]][number]
    assert holds == [bool(value) for value in expected]


@pytest.mark.parametrize(
    ("one", "other", "fields"),
    [
        ("Marria blazer", "Marria blazer", {"colour": "red"}),
        ("Marria blazer", "Marria blazer", {"brand": "Solano"}),
        ("Marria blazer", "Marria blazer", {"category": "Coat"}),
        ("Marria blazer", "Marria limited blazer", {}),
        ("Coryard blazer", "Coryarda blazer", {}),
        ("Elcliffe blazer", "Bellcliffe blazer", {}),
        ("Torcliffe blazer", "Lorcliffe blazer", {}),
        ("Marina blazer", "Maruna blazer", {}),
        ("Waterproof blazer", "Waterprooff blazzer", {}),
        ("Phone 12 blazer", "Phone 13 blazer", {}),
        ("Phone XJ2000 blazer", "Phone XJ200 blazer", {}),
        ("Phone X12345678900 blazer", "Phone X12345678901 blazer", {}),
        ("Waterproof 12 blazer", "Waterprof 13 blazer", {}),
        ("Kestrel", "Kestrel", {}),
        ("", "", {}),
    ],
)
def test_no_rule_folds(one: str, other: str, fields: dict[str, object]) -> None:
    assert rule(one, other, **fields) is None


def test_a_typo_must_reach_the_threshold() -> None:
    assert rule("Marria blazer", "Maria blazer", min_spelling_similarity=0.9) == "typo"
    assert rule("Marria blazer", "Maria blazer", min_spelling_similarity=0.95) is None
    assert rule("Coryard blazer", "Coryarda blazer", min_spelling_similarity=0.85) == "typo"
    assert rule("Marria blazer", "Marira blazer", min_spelling_similarity=1.0) is None


# Few words, so that products often agree.
titles = st.lists(
    st.sampled_from(
        ["Marria", "Maria", "Marira", "Coryard", "blazer", "blazr", "XL", "S", "2020", "2021",
         "12", "13", "Waterproof", "Waterprof", "water", "proof", "Kestrel", "Kestrl", "navy"]
    ),
    max_size=4,
).map(" ".join)  # fmt: skip
products = st.builds(
    Product,
    sku=st.sampled_from("ABCDEFGHIJ"),
    title=titles,
    brand=st.sampled_from(["Kestrel", "Solano", None]),
    category=st.just("Blazer"),
    colour=st.sampled_from(["navy", None]),
    year=st.sampled_from([2020, 2021, None]),
)
found = st.lists(
    st.builds(FoldCandidate, products, st.sampled_from([0.5, 0.7, 0.9])),
    max_size=8,
    unique_by=lambda candidate: candidate.sku,
)


@st.composite
def verdicts(draw: st.DrawFn) -> list[Verdict]:
    """Verdicts about candidates and others that do not contradict: products are 0 to 3."""
    truth = {sku: draw(st.integers(0, 3)) for sku in "ABCDEFGHIJKL"}
    pairs = draw(st.lists(st.sampled_from(list(combinations(truth, 2))), max_size=8, unique=True))
    return [Verdict(a, b, truth[a] == truth[b]) for a, b in pairs]


@given(products, products, st.floats(0, 1))
def test_rules_are_symmetric(a: Product, b: Product, min_spelling_similarity: float) -> None:
    assert same_product(a, b, min_spelling_similarity) == same_product(
        b, a, min_spelling_similarity
    )


@given(found, verdicts(), st.randoms())
def test_folding_does_not_depend_on_any_order(
    found: list[FoldCandidate], verdicts: list[Verdict], random: object
) -> None:
    expected = fold(found, verdicts, TYPO, one_picture)
    random.shuffle(found)  # type: ignore[attr-defined]
    random.shuffle(verdicts)  # type: ignore[attr-defined]
    assert fold(found, verdicts, TYPO, one_picture) == expected


@given(found, verdicts())
def test_every_candidate_is_in_one_group(
    found: list[FoldCandidate], verdicts: list[Verdict]
) -> None:
    told = fold(found, verdicts, TYPO, one_picture)
    every = [c for g in told for c in [g.keeper, *(fold.candidate for fold in g.folded)]]
    assert sorted(every, key=lambda c: c.sku) == sorted(found, key=lambda c: c.sku)
    assert [g.keeper.similarity for g in told] == sorted(
        (g.keeper.similarity for g in told), reverse=True
    )


@given(found)
def test_without_verdicts_groups_are_the_closure_of_the_rules(
    found: list[FoldCandidate],
) -> None:
    left = {candidate.sku: candidate.product for candidate in found}
    expected: set[frozenset[str]] = set()
    while left:
        _, first = left.popitem()
        group = [first]
        for one in group:
            near = [sku for sku, other in left.items() if same_product(one, other, TYPO)]
            group += [left.pop(sku) for sku in near]
        expected.add(frozenset(product.sku for product in group))
    assert groups(fold(found, [], TYPO, one_picture)) == expected


@given(found, verdicts())
def test_every_fold_names_a_rule_that_holds(
    found: list[FoldCandidate], verdicts: list[Verdict]
) -> None:
    by_sku = {candidate.sku: candidate.product for candidate in found}
    for group in fold(found, verdicts, TYPO, one_picture):
        reached = {group.keeper.sku, *(fold.candidate.sku for fold in group.folded)}
        for one in group.folded:
            assert one.matched_by in reached
            if one.rule != "verdict":
                matched = by_sku[one.matched_by]
                assert one.rule == same_product(one.candidate.product, matched, TYPO)


@given(found, verdicts())
def test_verdicts_are_transitive(found: list[FoldCandidate], verdicts: list[Verdict]) -> None:
    product_of = {sku: sku for sku in "ABCDEFGHIJKL"}
    for verdict in verdicts:
        if verdict.same:
            kept, gone = product_of[verdict.sku_a], product_of[verdict.sku_b]
            product_of = {sku: kept if of == gone else of for sku, of in product_of.items()}
    apart = {frozenset([product_of[v.sku_a], product_of[v.sku_b]])
             for v in verdicts if not v.same}  # fmt: skip
    group_of = {
        sku: group for group in groups(fold(found, verdicts, TYPO, one_picture)) for sku in group
    }
    for a, b in combinations(group_of, 2):
        if product_of[a] == product_of[b]:
            assert group_of[a] == group_of[b]
        if frozenset([product_of[a], product_of[b]]) in apart:
            assert group_of[a] != group_of[b]


def test_the_most_similar_is_kept_then_the_newest_then_the_first_sku() -> None:
    def kept(*those: tuple[str, float, int | None]) -> str:
        listed = [FoldCandidate(product(s, "Marria", year=y), found) for s, found, y in those]
        return fold(listed, [], TYPO)[0].keeper.sku

    assert kept(("A", 0.5, 2025), ("B", 0.6, 2020)) == "B"
    assert kept(("A", 0.5, 2020), ("B", 0.5, 2021), ("C", 0.5, None)) == "B"
    assert kept(("B", 0.5, 2020), ("A", 0.5, 2020)) == "A"


def test_a_verdict_same_folds_and_is_named_as_the_rule() -> None:
    group = fold(candidates("Marria", "Coryard"), [Verdict("A", "B", True)], TYPO)[0]
    assert [(fold.rule, fold.matched_by) for fold in group.folded] == [("verdict", "A")]


def test_a_verdict_different_prevents_folding() -> None:
    assert skus(fold(candidates("Marria", "Marria"), [Verdict("A", "B", False)], TYPO)) == {
        "A", "B",
    }  # fmt: skip


def test_a_verdict_applies_through_a_product_that_is_not_a_candidate() -> None:
    told = [Verdict("A", "Z", True), Verdict("B", "Z", False)]
    assert skus(fold(candidates("Marria", "Marria"), told, TYPO)) == {"A", "B"}
    told = [Verdict("A", "Z", True), Verdict("B", "Z", True)]
    assert skus(fold(candidates("Marria", "Coryard"), told, TYPO)) == {"AB"}


def test_a_third_product_joins_only_one_side_of_a_verdict() -> None:
    told = [Verdict("A", "B", False)]
    assert skus(fold(candidates("Marria", "Marria", "Marria"), told, TYPO)) == {"AC", "B"}


def test_folding_is_transitive() -> None:
    found = fold(candidates("Marria hat", "Marira hat", "Marira hats XL"), [], TYPO)
    assert skus(found) == {"ABC"}
    reasons = {fold.candidate.sku: (fold.rule, fold.matched_by) for fold in found[0].folded}
    assert reasons == {"B": ("typo", "A"), "C": ("typo", "A")}


def test_no_candidates_give_no_groups() -> None:
    assert fold([], [Verdict("A", "B", True)], TYPO) == []


# The made catalogue: its last rows repeat others, or carry the photo of others.


@pytest.fixture(scope="module")
def clothing(test_data: Path) -> list[FoldCandidate]:
    with (test_data / "clothing" / "catalogue.csv").open(encoding="utf-8", newline="") as file:
        return [
            FoldCandidate(
                Product(row["sku"], row["title"], row["brand"], row["category"], row["colour"],
                        int(row["year"])),
                1.0,
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip


@pytest.fixture(scope="module")
def made(clothing: list[FoldCandidate]) -> list[tuple[str, str]]:
    """Each generated row and the row it was generated from, found without our normaliser."""

    def spelled(product: Product) -> str:
        plain = product.title.upper().replace("É", "E").replace("È", "E").replace("Ö", "O")
        return "".join(letter for letter in plain if letter.isalnum())

    def fields(product: Product) -> tuple[object, ...]:
        return spelled(product), product.brand, product.category, product.colour

    first = {fields(c.product): c.sku for c in clothing[:1255]}
    assert len(first) == 1255
    return [
        (first[fields(c.product)], c.sku) for c in clothing[1255:] if fields(c.product) in first
    ]


@pytest.fixture(scope="module")
def figures(clothing: list[FoldCandidate], made: list[tuple[str, str]]) -> DuplicateReport:
    return compare(fold(clothing, [], TYPO), made)


def test_exactly_the_generated_pairs_fold(
    made: list[tuple[str, str]], figures: DuplicateReport
) -> None:
    assert len(made) == 84
    assert figures.precision is not None
    assert figures.precision >= 0.97 and figures.recall >= 0.97, figures


def test_products_with_the_photo_of_another_do_not_fold(
    clothing: list[FoldCandidate], figures: DuplicateReport
) -> None:
    wrong = {candidate.sku for candidate in clothing[-12:]}
    assert not [pair for pair in figures.false_folds if wrong & set(pair)]
    assert wrong <= {g.keeper.sku for g in fold(clothing, [], TYPO) if not g.folded}


@pytest.mark.parametrize("order", ["XYZ", "YXZ", "ZXY", "ZYX"])
def test_a_typo_is_found_whichever_sku_has_it(order: str) -> None:
    titles = dict(zip(order, ["glasses sun", "sun glasses", "sunglasses"], strict=True))
    found = [
        FoldCandidate(Product(sku, title, brand="b", category="c"), 0.5)
        for sku, title in titles.items()
    ]
    assert skus(fold(found, [], TYPO, one_picture)) == {"XYZ"}


def test_another_order_of_words_is_not_a_typo() -> None:
    """One key in two orders; a verdict keeps apart the one whose order made the typo."""
    titles = {"X": "sun glasses", "Y": "glasses sun", "Z": "sunglasses"}
    candidates = [
        FoldCandidate(Product(sku, title, brand="b", category="c"), 0.5)
        for sku, title in titles.items()
    ]
    apart = [Verdict("X", "Y", False), Verdict("X", "Z", False)]
    groups = fold(candidates, apart, 0.9, one_picture)
    assert {group.keeper.sku for group in groups} == {"X", "Y", "Z"}


def test_typing_errors_are_not_looked_for_in_very_long_titles_and_that_is_said() -> None:
    words = " ".join(f"{letter}{letter}ovar" for letter in "abcdefghijklmnopqrst")
    short, long_ = f"lantern {words}", f"lantern {words} {words}"
    for title, typos in ((short, 1), (long_, 0)):
        products = [Product("A", title), Product("B", title.replace("lantern", "lamtern"))]
        found = Folding([FoldCandidate(each, 1.0) for each in products], [], 0.8)
        assert sum(len(group.folded) for group in found.groups()) == typos
        said = "2 titles have more than 40 words; typing errors were not looked for in them"
        assert found.not_tried == (() if typos else (said,))


def test_only_so_many_likely_pairs_of_titles_are_compared_and_that_is_said() -> None:
    names = ["lantern", "lamtern", "lantren", "lanterm"]
    candidates = [FoldCandidate(Product(name, f"{name} ovar"), 1.0) for name in names]
    assert Folding(candidates, [], 0.8).not_tried == ()
    assert "too many are alike" in Folding(candidates, [], 0.8, max_typo_pairs=1).not_tried[0]
