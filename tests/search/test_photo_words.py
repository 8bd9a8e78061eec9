"""Photo and words: the words re-rank the products near the photo, and find no others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.bootstrap import App
from app.config import Settings
from app.encoders.base import EncoderChoice
from app.search import photo_words
from app.search.filters import parse
from app.search.photo_words import PoolProduct, kinds_by_vote, kinds_of_query, rank
from app.types import Count, Hit, Query, Shortfall
from support.copies import copied_for
from support.shop import add
from support.text_encoder import TextEncoder, add_titled, ask, skus

ASKED = 1000
COLOURS = ("red", "blue", "green")


def fill(app: App) -> None:
    """Twelve shirts of which the query's photo shows one, and twelve bags, of three colours."""
    for n in range(12):
        colour = COLOURS[n % 3]
        seed = ASKED if n == 1 else n
        add_titled(app, f"SHIRT{n:02}", f"cotton {n}", seed, category="Shirt", colour=colour)
        add_titled(app, f"BAG{n:02}", f"leather {n}", 100 + n, category="Bag", colour=colour)
    app.indexer.rebuild()


database_url = copied_for("shop", fill)


@pytest.fixture
def shop(app: App) -> App:
    return app


@pytest.fixture
def reading(settings: Settings) -> Iterator[App]:
    """The same services with an encoder that reads words."""
    with App(settings, choose=lambda model, **_: EncoderChoice(TextEncoder(), "reads")) as app:
        yield app


def similarities(app: App) -> dict[str, float | None]:
    """The similarity of each product to the photo alone."""
    return {match.product.sku: match.similarity for match in ask(app, ASKED, k=100).matches}


def test_products_of_the_photos_kind_with_the_words_come_first(shop: App) -> None:
    found = ask(shop, ASKED, words="red", k=24).matches
    kinds = [(match.product.category, match.product.colour == "red") for match in found]
    assert (
        kinds
        == [("Shirt", True)] * 4
        + [("Shirt", False)] * 8
        + [("Bag", True)] * 4
        + [("Bag", False)] * 8
    )


def test_each_group_is_in_the_order_of_the_photo_and_shows_its_similarity(shop: App) -> None:
    alone = similarities(shop)
    found = ask(shop, ASKED, words="red", k=24).matches
    assert {match.product.sku: match.similarity for match in found} == alone
    for first, last in ((0, 4), (4, 12), (12, 16), (16, 24)):
        group = [match.similarity or 0.0 for match in found[first:last]]
        assert group == sorted(group, reverse=True)


def test_products_outside_the_pool_are_not_promoted(
    shop: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    nearest = skus(ask(shop, ASKED, k=24))
    monkeypatch.setattr(photo_words, "POOL_PRODUCTS", 6)
    result = ask(shop, ASKED, words="red", k=5)
    assert set(skus(result)) <= set(nearest[:6])
    assert "the words rank the 6 products nearest to the photo" in result.plan.reason


def test_words_that_name_another_kind_ask_for_it(shop: App) -> None:
    found = ask(shop, ASKED, words="red bags", k=12).matches
    assert [match.product.category for match in found] == ["Bag"] * 12
    assert {match.product.colour for match in found[:4]} == {"red"}


def test_a_misspelt_kind_is_read_as_it_is_corrected(shop: App) -> None:
    add_titled(shop, "DRESS", "long", 300, category="Dress")
    found = ask(shop, ASKED, words="dresss in red", k=1).matches
    assert [match.product.sku for match in found] == ["DRESS"]


@pytest.mark.parametrize("fold", [False, True])
def test_an_excluded_word_excludes_beside_a_photo(shop: App, fold: bool) -> None:
    result = ask(shop, ASKED, words="shirt -red", k=24, fold=fold)
    assert len(result.matches) == 16
    assert {match.product.colour for match in result.matches} == {"blue", "green"}
    assert result.plan.shortfall_counts is not None
    assert result.plan.shortfall_counts.unwanted == 8
    assert "8 were left out for an excluded word" in (result.plan.shortfall or "")
    first = skus(ask(shop, ASKED, words="shirt -red", k=5, fold=fold))
    assert first == skus(result)[:5]


def test_an_excluded_word_names_no_kind(shop: App) -> None:
    found = ask(shop, ASKED, words="red -bag", k=4).matches
    assert {match.product.category for match in found} == {"Shirt"}


def test_the_kind_of_a_product_is_its_own(shop: App) -> None:
    found = shop.search.search(Query(sku="BAG00", words="blue", k=4)).matches
    assert [(m.product.category, m.product.colour) for m in found] == [("Bag", "blue")] * 4


def test_words_that_nothing_has_leave_the_order_within_the_kind(shop: App) -> None:
    result = ask(shop, ASKED, words="umbrella", k=24)
    shirts = [sku for sku in skus(ask(shop, ASKED, k=24)) if sku.startswith("SHIRT")]
    assert skus(result)[:12] == shirts
    assert "0 of which have any of them" in result.plan.reason


@pytest.mark.parametrize("how", [{}, {"fold": True}, {"fold": True, "near_match": 0.3}])
def test_pages_of_photo_and_words_equal_one_long_page(
    shop: App, monkeypatch: pytest.MonkeyPatch, how: dict[str, object]
) -> None:
    monkeypatch.setattr(photo_words, "POOL_PRODUCTS", 30)
    add_titled(shop, "YEAR", "cotton 4", 4, category="Shirt", colour="blue", year=2020)
    whole = skus(ask(shop, ASKED, words="red", k=60, **how))
    came: list[str] = []
    shown: tuple[str, ...] = ()
    while True:
        result = ask(shop, ASKED, words="red", k=5, shown=shown, **how)
        shown += result.shown
        came += skus(result)
        if len(result.matches) < 5:
            break
    assert came == whole and len(set(came)) == len(came)
    assert result.plan.shortfall is not None


def test_a_page_beyond_the_pool_is_full(shop: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_words, "POOL_PRODUCTS", 3)
    assert len(ask(shop, ASKED, words="red", k=20).matches) == 20
    first = ask(shop, ASKED, words="red", k=10)
    second = ask(shop, ASKED, words="red", k=14, shown=first.shown)
    assert sorted(skus(first) + skus(second)) == sorted(similarities(shop))


def test_filters_and_the_minimum_similarity_hold(shop: App) -> None:
    found = ask(shop, ASKED, words="red", k=24, filters=parse(["colour=blue"])).matches
    assert {match.product.colour for match in found} == {"blue"} and len(found) == 8
    alone = sorted((each or 0.0 for each in similarities(shop).values()), reverse=True)
    least = (alone[6] + alone[7]) / 2
    result = ask(shop, ASKED, words="red", k=24, min_similarity=least)
    assert sorted((m.similarity or 0.0 for m in result.matches), reverse=True) == alone[:7]
    assert (result.plan.shortfall or "").startswith("Only 7 of 24 products are at least as similar")


def test_words_that_rank_dissimilar_products_first_leave_the_page_full(shop: App) -> None:
    alone = sorted((each or 0.0 for each in similarities(shop).values()), reverse=True)
    least = (alone[6] + alone[7]) / 2
    how: dict[str, object] = {"words": "red bag", "min_similarity": least}
    first = ask(shop, ASKED, k=4, **how)
    assert len(first.matches) == 4 and first.plan.shortfall is None
    second = ask(shop, ASKED, k=4, shown=first.shown, **how)
    assert len(set(skus(first) + skus(second))) == 7
    assert (second.plan.shortfall_counts or Shortfall(0, Count(0))).below_minimum == Count(17)


def test_a_near_duplicate_of_the_query_is_dropped(shop: App) -> None:
    result = ask(shop, ASKED, words="red", k=24, near_query=0.001)
    assert "SHIRT01" not in skus(result) and len(result.matches) == 23


def test_without_categories_the_words_alone_rank(app: App) -> None:
    add(app, {f"P{n}": [n] for n in range(8)})
    add_titled(app, "RED", "red thing", 2000)
    assert skus(ask(app, ASKED, words="red", k=9))[0] == "RED"


def test_a_model_that_reads_words_ranks_the_pool_by_both(
    reading: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder sees the text "7" as photo 7."""
    add(reading, {"PHOTO": [ASKED], "TEXT": [7], "BOTH": [7, ASKED]})
    add(reading, {f"P{n:02}": [n] for n in range(20, 40)})
    reading.indexer.rebuild()
    alone = similarities(reading)
    result = ask(reading, ASKED, words="7", words_by="model", k=23)
    assert skus(result)[0] == "BOTH" and set(skus(result)[1:3]) == {"PHOTO", "TEXT"}
    assert {match.product.sku: match.similarity for match in result.matches} == alone
    assert result.plan.words == "model"
    only = ask(reading, ASKED, words="7", words_by="model", words_weight=0.0, k=23)
    assert skus(only) == skus(ask(reading, ASKED, k=23))
    nearest = skus(ask(reading, ASKED, k=23))
    monkeypatch.setattr(photo_words, "POOL_PRODUCTS", nearest.index("TEXT"))
    assert "TEXT" not in skus(ask(reading, ASKED, words="7", words_by="model", k=2))


# Ranking as a pure function


pools = st.lists(
    st.builds(
        lambda similarity, category, words: (similarity, category, words),
        st.floats(-1, 1), st.sampled_from([None, "Shirt", "Bag"]), st.sampled_from([0.0, 1.0]),
    ),
    max_size=12,
)  # fmt: skip


@given(pools, st.sampled_from([0.5, 0.7, 1.0]))
def test_from_half_the_weight_on_kind_comes_before_words_and_words_before_similarity(
    drawn: list[tuple[float, str | None, float]], weight: float
) -> None:
    pool = [
        PoolProduct(Hit(n, n, 1 - similarity), category, words)
        for n, (similarity, category, words) in enumerate(drawn)
    ]
    by_id = {each.hit.product_id: each for each in pool}
    ranked = [
        by_id[hit.product_id]
        for hit, _ in rank(pool, {"Shirt"}, weight=weight, catalogue_weight=weight)
    ]
    keys = [(e.category != "Shirt", -e.words, round(e.hit.distance, 9)) for e in ranked]
    assert keys == sorted(keys)


@given(pools)
def test_without_weight_the_order_is_that_of_the_photo(
    drawn: list[tuple[float, str | None, float]],
) -> None:
    pool = [PoolProduct(Hit(n, n, 1 - each[0]), *each[1:]) for n, each in enumerate(drawn)]
    ranked = [hit for hit, _ in rank(pool, {"Shirt"}, weight=0.0, catalogue_weight=0.0)]
    assert [hit.distance for hit in ranked] == sorted(hit.distance for hit in ranked)


@pytest.mark.parametrize(
    ("near", "kinds"),
    [
        ([], set()),
        ([(None, 0.9)], set()),
        ([("Shirt", 0.9), ("Bag", 0.7), ("Bag", 0.7), ("Bag", 0.7)], {"Shirt"}),
        ([("Shirt", 0.9), ("Polo", 0.89), ("Bag", 0.5)], {"Shirt", "Polo"}),
        ([(None, 0.95), ("Shirt", 0.6), *[("Bag", 0.59)] * 5], {"Bag"}),
    ],
)
def test_near_products_vote_for_the_kind_by_their_similarity(
    near: list[tuple[str | None, float]], kinds: set[str]
) -> None:
    assert kinds_by_vote(near) == kinds


@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        ("red", {"Shirt"}),
        ("a red dress", {"Dress"}),
        ("dresses in red", {"Dress"}),
        ("red shirts", {"Shirt"}),
        ("t-shirts", {"T-Shirt"}),
    ],
)
def test_words_may_name_the_kind(words: str, kinds: set[str]) -> None:
    categories = {"Shirt", "Dress", "T-Shirt"}
    assert kinds_of_query(frozenset({"Shirt"}), words, categories) == kinds
