"""A picture that very many products show is one match, with the other products under it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.encoders.base import EncoderChoice
from app.search import planner
from app.search.filters import parse
from app.types import Count, Query, SearchResult
from support.colours import photo
from support.copies import copied_for
from support.shop import add, numbered
from support.text_encoder import TextEncoder, add_titled, skus

PLACEHOLDER = 500


def fill(app: App) -> None:
    """Thirty products with a placeholder, one of them with a photo too, and ten with a photo."""
    add(app, {f"SAME{n:02}": [PLACEHOLDER] for n in range(29)})
    add(app, {"BOTH": [PLACEHOLDER, 600]})
    add(app, numbered(10))
    app.indexer.rebuild()


database_url = copied_for("shop", fill)


@pytest.fixture
def shop(app: App) -> App:
    return app


def ask(app: App, seed: int = PLACEHOLDER, k: int = 12, **more: Any) -> SearchResult:
    return app.search.search(Query(picture=photo(seed), k=k, fold=True, **more))


def test_a_placeholder_takes_one_place_and_names_how_many_show_it(shop: App) -> None:
    result = ask(shop)
    first, *others = result.matches
    assert first.product.sku == "SAME00" and first.same_picture == Count(30)
    assert [product.sku for product in first.listed] == [f"SAME{n:02}" for n in range(1, 13)]
    assert len(others) == 11
    assert {match.product.sku for match in others} == {"BOTH", *numbered(10)}
    assert all(match.same_picture is None for match in others)


def test_a_short_page_counts_the_products_that_show_only_the_placeholder(shop: App) -> None:
    result = ask(shop, k=40)
    short = result.plan.shortfall_counts
    assert short is not None and len(result.matches) == 12
    assert short.same_picture == Count(28)
    assert short.matching.products == short.returned + short.same_picture.products
    assert "28 have the same picture as a match" in (result.plan.shortfall or "")


def test_a_later_page_does_not_show_the_placeholder_again(shop: App) -> None:
    shown: tuple[str, ...] = ()
    for _ in range(3):
        shown += ask(shop, k=5, shown=shown).shown
    assert len(shown) == 12 and sum(sku.startswith("SAME") for sku in shown) == 1


def test_filters_and_the_minimum_similarity_hold_beside_a_placeholder(shop: App) -> None:
    assert skus(ask(shop, min_similarity=0.999)) == ["SAME00"]
    assert set(skus(ask(shop, near_query=0.01))) == set(numbered(10))


def test_without_folding_every_product_is_a_match(shop: App) -> None:
    found = shop.search.search(Query(picture=photo(PLACEHOLDER), k=12))
    assert all(match.product.sku.startswith(("SAME", "BOTH")) for match in found.matches)


def test_a_picture_of_few_products_is_theirs(shop: App) -> None:
    add(shop, {f"FEW{n}": [700] for n in range(3)})
    found = ask(shop, 700, k=3)
    assert {sku[:3] for sku in skus(found)} == {"FEW"}
    assert found.matches[0].same_picture is None


def test_words_choose_among_the_products_of_one_picture(shop: App) -> None:
    """The first one by id stands for none of those that have the words, or not the excluded one."""
    for n in range(22):
        add_titled(shop, f"CUP{n:02}", f"cup {n}", 800, colour=("red", "blue")[n % 2])
    blue = ask(shop, 800, k=3, words="blue").matches
    assert [match.product.colour for match in blue] == ["blue"] * 3
    assert skus(ask(shop, 800, k=1, words="cup 17")) == ["CUP17"]
    assert skus(ask(shop, 800, k=1, words="cup -red")) == ["CUP01"]


def test_the_last_product_of_a_shown_picture_is_not_a_later_match(shop: App) -> None:
    add(shop, {sku: [PLACEHOLDER] for sku in ("CAP1", "CAP2")}, category="cap")
    caps = parse(["category=cap"])
    first = ask(shop, k=1, filters=caps)
    assert skus(first) == ["CAP1"] and [each.sku for each in first.matches[0].listed] == ["CAP2"]
    second = ask(shop, k=1, filters=caps, shown=first.shown)
    assert not second.matches
    short = second.plan.shortfall_counts
    assert short is not None and (short.earlier, short.same_picture) == (1, Count(1))


def test_only_the_pictures_of_the_page_cost_a_retrieval(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(app, {f"S{n:02}-{m:02}": [800 + n] for n in range(12) for m in range(21)})
    found, retrieved = planner.find, []

    def find(*arguments: Any) -> object:
        retrieved.append(arguments)
        return found(*arguments)

    monkeypatch.setattr(planner, "find", find)
    pictures = {sku[:3] for sku in skus(ask(app, 800, k=2))}
    assert len(pictures) == 2 and len(retrieved) <= 3


def test_a_picture_behind_folded_ones_is_one_match(app: App, sql: psycopg.Connection) -> None:
    add(app, numbered(10))
    near = skus(ask(app, 0, k=10))
    sql.execute(
        'UPDATE product SET attributes = \'{"gtin": "4006381333931"}\' WHERE sku = ANY(%s)',
        [near[:2]],
    )
    add(app, {f"SAME{n:02}": [int(near[2][1:])] for n in range(22)})
    found = ask(app, 0, k=2)
    assert skus(found) == [near[0], near[2]]
    assert found.matches[1].same_picture == Count(23)
    assert skus(ask(app, 0, k=1, shown=found.shown)) == [near[3]]


def test_pages_reranked_by_the_model_equal_one_long_page(settings: Settings) -> None:
    with App(settings, choose=lambda model, **_: EncoderChoice(TextEncoder(), "reads")) as app:
        add(app, {f"SAME{n:02}": [PLACEHOLDER] for n in range(22)})
        add(app, {f"THEN{n:02}": [3] for n in range(22)} | numbered(6, first=2))
        words = {"words": "7", "words_by": "model"}
        whole, came = skus(ask(app, k=40, **words)), ()
        for _ in range(5):
            came += ask(app, k=2, shown=came, **words).shown
        assert list(came) == whole and len(whole) == 7
