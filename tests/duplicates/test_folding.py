"""Folding by pictures and identifiers: what joins, what stays apart, and what the evidence says."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Mapping, Sequence
from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.duplicates import same_product
from app.duplicates.evidence import FoldCuts, PictureEvidence
from app.duplicates.folding import Folding
from app.duplicates.general_words import is_generic
from app.duplicates.groups import DuplicateGroup, FoldCandidate, SimilarPair
from app.duplicates.identifiers import gtin14, identifiers
from app.duplicates.normalization import identity_key
from app.duplicates.related import parts
from app.types import Calibration, CutOff, Model, Product, Verdict

GTINS = ("5901234123457", "4006381333931")
TELLING, GENERIC = "Marria blazer", "navy blazer"
CUTS = FoldCuts(0.2)


def product(sku: str, title: str = TELLING, **fields: object) -> Product:
    known = {"brand": "Kestrel", "category": "Blazer", "colour": "navy", "year": 2020}
    return Product(sku, title, **(known | fields))  # type: ignore[arg-type]


def at(*degrees: float) -> np.ndarray:
    """Pictures in the plane: two of them are 1 - cos(difference) apart."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def folding(
    products: Sequence[Product],
    pictures: Mapping[str, np.ndarray],
    *verdicts: Verdict,
    cuts: FoldCuts = CUTS,
) -> Folding:
    def load(skus: Sequence[str]) -> PictureEvidence:
        return PictureEvidence({sku: pictures[sku] for sku in skus if sku in pictures}, cuts)

    return Folding([FoldCandidate(each, 1.0) for each in products], verdicts, 0.9, load)


def groups(found: Sequence[DuplicateGroup]) -> set[str]:
    return {"".join(sorted(group.skus)) for group in found}


def told(found: Folding) -> dict[str, tuple[str, str]]:
    return {
        fold.candidate.sku: (fold.rule, fold.evidence)
        for group in found.groups()
        for fold in group.folded
    }


def test_same_words_fold_only_with_pictures_that_agree() -> None:
    found = folding(
        [product("A"), product("B"), product("C")], {"A": at(0), "B": at(10), "C": at(60)}
    )
    assert groups(found.groups()) == {"AB", "C"}
    assert told(found) == {"B": ("same words", "words and pictures")}
    [pair] = found.similar()
    assert (pair.product.sku, pair.other.sku, pair.rule) == ("B", "C", "same words")
    assert pair.reason == "other pictures"
    assert pair.distance == pytest.approx(1 - np.cos(np.radians(50)), abs=1e-6)


def test_the_nearest_of_several_pictures_counts() -> None:
    found = folding([product("A"), product("B")], {"A": at(0, 90), "B": at(180, 95)})
    assert groups(found.groups()) == {"AB"}


def test_generic_words_need_nearer_pictures() -> None:
    pictures = {"A": at(0), "B": at(35)}  # 0.18 apart
    assert groups(folding([product("A"), product("B")], pictures).groups()) == {"AB"}
    generic = [product("A", GENERIC), product("B", GENERIC)]
    assert groups(folding(generic, pictures).groups()) == {"A", "B"}
    assert groups(folding(generic, {"A": at(0), "B": at(20)}).groups()) == {"AB"}


def test_the_cut_is_that_of_the_category_then_of_the_catalogue_then_of_the_model() -> None:
    def row(category: str | None, distance: float | None) -> Calibration:
        unknown = CutOff(None, 0, 0)
        return Calibration(category, unknown, CutOff(distance, 20, 20), unknown)

    def model(name: str, revision: str) -> Model:
        return Model(1, name, revision, 512, "f")

    cuts = FoldCuts.of_model(
        model("embedded", "1-a"), [row(None, 0.3), row("Hat", 0.1), row("Coat", None)]
    )
    assert [cuts.cut(name, generic=False) for name in ("Hat", "Coat", "Vest", None)] == [
        0.1, 0.3, 0.3, 0.3,
    ]  # fmt: skip
    assert cuts.cut("Hat", generic=True) == 0.0625
    uncalibrated = FoldCuts.of_model(model("embedded-int8", "1-b"), [])
    assert uncalibrated.cut("Hat", generic=False) == 0.25
    assert FoldCuts.of_model(model("clip-ViT-B-32", "1-c"), []).default == 0.1


def test_without_a_picture_telling_words_fold_and_say_so() -> None:
    found = folding([product("A"), product("B")], {"A": at(0)})
    assert told(found) == {"B": ("same words", "words, no picture to compare")}


def test_without_a_picture_generic_words_are_similar_listings() -> None:
    found = folding([product("A", GENERIC), product("B", GENERIC)], {"A": at(0)})
    assert groups(found.groups()) == {"A", "B"}
    assert [pair.reason for pair in found.similar()] == ["no picture to compare"]


def test_a_product_without_a_picture_does_not_join_two_that_differ() -> None:
    products = [product(sku) for sku in "ABCD"]
    found = folding(products, {"A": at(0), "B": at(90)})
    assert groups(found.groups()) == {"A", "B", "CD"}
    assert groups(folding(products, {"A": at(0), "B": at(5)}).groups()) == {"ABCD"}


@pytest.mark.parametrize(
    ("attributes", "evidence"),
    [({"EAN": GTINS[0]}, "gtin"), ({"g:mpn": "KX-100"}, "mpn"),
     ({"item_group_id": "G7"}, "item group")],
)  # fmt: skip
def test_an_identifier_is_evidence_of_its_own(attributes: dict[str, str], evidence: str) -> None:
    products = [product("A", attributes=attributes), product("B", "Corano", attributes=attributes)]
    found = folding(products, {"A": at(0), "B": at(90)})
    assert told(found) == {"B": (evidence, evidence)}


def test_different_gtins_keep_apart_unless_a_verdict_joins() -> None:
    products = [
        product(sku, attributes={"gtin": gtin}) for sku, gtin in zip("AB", GTINS, strict=True)
    ]
    pictures = {"A": at(0), "B": at(0)}
    found = folding(products, pictures)
    assert groups(found.groups()) == {"A", "B"}
    assert [pair.reason for pair in found.similar()] == ["another gtin"]
    assert groups(folding(products, pictures, Verdict("A", "B", True)).groups()) == {"AB"}


def variants(**fields: object) -> list[Product]:
    """A and B of one item group, each with a gtin of its own."""
    return [
        product(sku, attributes={"gtin": gtin, "item_group_id": "G7"}, **fields)
        for sku, gtin in zip("AB", GTINS, strict=True)
    ]


def test_variants_of_one_colour_fold_although_their_gtins_differ() -> None:
    found = folding(variants(), {"A": at(0), "B": at(90)})
    assert told(found) == {"B": ("item group", "item group")}
    different = Verdict("A", "B", False)
    assert groups(folding(variants(), {"A": at(0), "B": at(0)}, different).groups()) == {"A", "B"}


@pytest.mark.parametrize(("degrees", "expected"), [(10, {"AB"}), (60, {"A", "B"})])
def test_variants_of_unknown_colour_fold_if_their_pictures_agree(
    degrees: float, expected: set[str]
) -> None:
    pictures = {"A": at(0), "B": at(degrees)}
    assert groups(folding(variants(colour=None), pictures).groups()) == expected


def test_a_product_with_a_gtin_joins_no_variants_that_lack_it() -> None:
    other = product("C", attributes={"gtin": "36000291452"})
    pictures = {sku: at(0) for sku in "ABC"}
    assert groups(folding([*variants(), other], pictures).groups()) == {"AB", "C"}


def test_a_product_between_two_that_differ_joins_the_nearer() -> None:
    products = [product(sku) for sku in "ABC"]
    pictures = {"A": at(0), "B": at(30), "C": at(18)}
    assert groups(folding(products, pictures, Verdict("A", "B", False)).groups()) == {"A", "BC"}


def test_an_item_group_of_another_colour_is_another_product() -> None:
    group = {"item_group_id": "G7"}
    products = [product("A", attributes=group), product("B", colour="red", attributes=group)]
    assert groups(folding(products, {}).groups()) == {"A", "B"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5901234123457", "05901234123457"), ("590-1234 123457", "05901234123457"),
     ("96385074", "00000096385074"), ("36000291452", "00036000291452"),
     ("5901234123458", None), ("0000000000000", None), ("5.9E+12", None), ("", None),
     ("123456789012345", None)],
)  # fmt: skip
def test_a_gtin_needs_a_right_check_digit(text: str, expected: str | None) -> None:
    assert gtin14(text) == expected


def test_the_first_valid_identifier_counts() -> None:
    attributes = {"barcode": GTINS[0], "gtin": "123", "EAN-13": int(GTINS[1]), "mpn": "none"}
    found = identifiers(product("A", attributes=attributes), "1|kestrel|blazer|navy|marria")
    assert (found.gtin, found.mpn, found.item_group) == ("0" + GTINS[1], None, None)


@pytest.mark.parametrize(
    ("title", "generic"),
    [("Kestrel navy blazer", True), ("Women classic blazer 500ml", True), ("Blazer XL 2020", True),
     ("Marria blazer", False), ("Blazer XJ2000", False)],
)  # fmt: skip
def test_a_title_of_general_words_is_generic(title: str, generic: bool) -> None:
    assert is_generic(identity_key(product("A", title))) is generic


def test_many_products_with_the_same_words_are_compared_in_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.duplicates.evidence.BLOCK", 64)
    count = 1500
    products = [product(f"P{n:04}") for n in range(count)]
    pictures = {each.sku: at(90 * (n % 2)) for n, each in enumerate(products)}
    tracemalloc.start()
    try:
        found = folding(products, pictures)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.groups()) == 2
    assert most < 8 * count**2, "bytes of one number for each pair"


# Few values, so that products often agree.
angles = st.lists(st.sampled_from([0, 15, 30, 50, 90, 180]), min_size=1, max_size=2)
catalogues = st.lists(
    st.builds(
        Product,
        sku=st.sampled_from("ABCDEFGH"),
        title=st.sampled_from([TELLING, GENERIC, "Marira blazer", "Corano blazer XL", ""]),
        brand=st.sampled_from(["Kestrel", "Kestrel", "Okari"]),
        category=st.sampled_from(["Blazer", "blazer", "Cap"]),
        colour=st.sampled_from(["navy", "red", None]),
        attributes=st.dictionaries(
            st.sampled_from(["gtin", "mpn", "item_group_id"]),
            st.sampled_from([*GTINS, "KX100"]),
            max_size=2,
        ),
    ),
    max_size=8,
    unique_by=lambda each: each.sku,
)
shown = st.dictionaries(st.sampled_from("ABCDEFGH"), angles.map(lambda a: at(*a)))


@st.composite
def decisions(draw: st.DrawFn) -> list[Verdict]:
    truth = {sku: draw(st.integers(0, 3)) for sku in "ABCDEFGH"}
    pairs = draw(st.lists(st.sampled_from(list(combinations(truth, 2))), max_size=5, unique=True))
    return [Verdict(a, b, truth[a] == truth[b]) for a, b in pairs]


@settings(deadline=None)  # each example folds the catalogue twice
@given(catalogues, shown, decisions(), st.randoms())
def test_the_order_of_products_and_verdicts_is_irrelevant(
    products: list[Product],
    pictures: dict[str, np.ndarray],
    verdicts: list[Verdict],
    order: random.Random,
) -> None:
    def everything() -> tuple[list[DuplicateGroup], list[SimilarPair]]:
        found = folding(products, pictures, *verdicts)
        return found.groups(), found.similar()

    expected = everything()
    order.shuffle(products)
    order.shuffle(verdicts)
    assert everything() == expected


@settings(deadline=None)  # each example folds the catalogue twice
@given(catalogues, shown, decisions())
def test_parts_are_folded_as_the_whole_is(
    products: list[Product], pictures: dict[str, np.ndarray], verdicts: list[Verdict]
) -> None:
    related = parts(products, verdicts)
    alone = {each.sku: each for each in products}
    for each in chain.from_iterable(related):
        del alone[each.sku]  # each is in one part at most
    separate = [folding(part, pictures, *verdicts) for part in [*related, *zip(alone.values())]]
    together = [group for found in separate for group in found.groups()]
    whole = folding(products, pictures, *verdicts).groups()
    assert sorted(together, key=lambda group: group.skus) == sorted(
        whole, key=lambda group: group.skus
    )


def test_of_many_equal_listings_only_the_first_is_compared_with_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.duplicates.same_product.MANY_PAIRS", 10)
    compared: list[int] = []
    measure = same_product.nearest_distances
    monkeypatch.setattr(
        same_product, "nearest_distances",
        lambda first, second: compared.append(len(first) * len(second)) or measure(first, second),
    )  # fmt: skip
    monkeypatch.setattr(same_product, "distance_blocks", lambda first, second: iter(()))
    titles = {"A": "Marria blazer", "B": "Marira blazer"}
    products = [product(f"{side}{n}", titles[side]) for side in "AB" for n in range(9)]
    found = folding(products, {each.sku: at(0) for each in products})
    assert len(found.groups()) == 1 and compared == [9, 9, 9, 9]


@settings(deadline=None)  # each example folds the catalogue twice
@given(catalogues, shown)
def test_comparing_with_the_first_only_changes_no_group(
    products: list[Product], pictures: dict[str, np.ndarray]
) -> None:
    expected = groups(folding(products, pictures).groups())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.duplicates.same_product.MANY_PAIRS", 0)
        assert groups(folding(products, pictures).groups()) == expected


@settings(deadline=None)
@given(catalogues, shown, decisions())
def test_verdicts_and_gtins_hold_and_every_fold_has_evidence(
    products: list[Product], pictures: dict[str, np.ndarray], verdicts: list[Verdict]
) -> None:
    found = folding(products, pictures, *verdicts)
    skus = {each.sku for each in products}
    group_of = {sku: group.skus for group in found.groups() for sku in group.skus}
    assert group_of.keys() == skus
    for verdict in verdicts:
        if {verdict.sku_a, verdict.sku_b} <= skus:
            assert (group_of[verdict.sku_a] == group_of[verdict.sku_b]) == verdict.same
    own = {each.sku: identifiers(each, identity_key(each)) for each in products}
    joined = {sku for verdict in verdicts for sku in (verdict.sku_a, verdict.sku_b)}
    joined |= {sku for sku, each in own.items() if each.item_group}
    for a, b in combinations(sorted(skus - joined), 2):
        gtins = own[a].gtin, own[b].gtin
        if all(gtins) and gtins[0] != gtins[1] and not joined & set(group_of[a]):
            assert group_of[a] != group_of[b]
    for group in found.groups():
        for fold in group.folded:
            if fold.evidence == "words and pictures":
                assert fold.distance is not None and fold.distance <= CUTS.default + 1e-6
