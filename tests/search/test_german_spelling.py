"""Words that are typed in German: read as German, and corrected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.bootstrap import App
from app.cli.search_output import as_dict
from app.config import Settings
from app.search.explain import reading_texts
from app.search.german_spelling import nearest_name, to_encode
from app.types import Product, Query, SearchResult
from support.colours import choose_colours
from support.exact import skus
from support.shop import add_products

SHOP = (
    Product("SNEAKER", "Swift sneaker", "Swift", "Sneaker", "red"),
    Product("JACKET", "Amble jacket", "Amble", "Jacket", "green"),
    Product("SKIRT", "Amble skirt", "Amble", "Skirt", "black"),
    Product("BAND", "Rock band top", "Amble", "Top", "black"),
    Product("HAT", "Amble cap", "Amble", "Cap", "blue"),
    Product("TORUS", "Torus sculpture", "Torus", "Decor", "white"),
)


def fill(app: App) -> None:
    add_products(app, [(product, [n]) for n, product in enumerate(SHOP)])


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory,
    shared_filled_database: Callable[[Callable[[App], object]], str],
) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("shop")
    made = Settings(home=folder, database_url=shared_filled_database(fill))
    with App(made, choose=choose_colours) as app:
        yield app


def ask(app: App, words: str, **more: Any) -> SearchResult:
    return app.search.search(Query(words=words, words_by="catalogue", **more))


@pytest.mark.parametrize(
    ("typed", "read_as", "sku"),
    [("Turnschue", "turnschuh", "SNEAKER"), ("Mütxe", "mütze", "HAT"),
     ("rotter", "roter", "SNEAKER")],
)  # fmt: skip
def test_misspelt_german_is_corrected_where_the_text_is_german(
    shop: App, typed: str, read_as: str, sku: str
) -> None:
    result = ask(shop, typed, words_language="de")
    assert skus(result) == [sku]
    corrected = as_dict(result)["plan"]["corrected"]
    assert [each["to"] for each in corrected] == [read_as]
    assert any(f"searched for '{read_as}'" in told for told in reading_texts(result.plan))
    assert skus(ask(shop, typed)) != [sku]


def test_a_word_of_the_catalogue_that_is_nearer_is_taken(shop: App) -> None:
    result = ask(shop, "toruss", words_language="de")
    assert skus(result) == ["TORUS"]


def test_a_german_name_of_what_no_product_is_corrects_nothing(shop: App) -> None:
    result = ask(shop, "Kartofel", words_language="de")
    assert (skus(result), as_dict(result)["plan"]["ignored"]) == ([], ["kartofel"])


@pytest.mark.parametrize("language", ["de", None])
def test_a_compound_that_no_product_is_means_what_its_last_part_does(
    shop: App, language: Any
) -> None:
    asked = {"Lederjacke": ["JACKET"], "Turnschuh": ["SNEAKER"], "Badeanzug": []}
    found = {word: skus(ask(shop, word, words_language=language)) for word in asked}
    assert found == asked


def test_a_word_that_is_english_too_is_read_in_both_ways(shop: App) -> None:
    assert skus(ask(shop, "Rock")) == ["BAND"]
    assert set(skus(ask(shop, "Rock", words_language="de"))) == {"BAND", "SKIRT"}


@pytest.mark.parametrize(
    ("typed", "encoded"),
    [
        ("Rock", "skirt"), ("Hut ohne Rot", "hat -Rot"), ("rote Turnschue", "rote turnschuh"),
        ("Mütxe", "mütze"), ("sneaker", "sneaker"), ("DEMO-0007 Hemd", "DEMO-0007 Hemd"),
        ("Nike", "Nike"), ("qwrtzpl", "qwrtzpl"),
    ],
)  # fmt: skip
def test_the_text_side_gets_german_words_corrected_and_told_from_english_ones(
    typed: str, encoded: str
) -> None:
    assert to_encode(Query(words=typed, words_language="de")) == encoded
    assert to_encode(Query(words=typed)) == typed


@pytest.mark.parametrize(
    "word", ["turnschuhe", "Sommerkleid", "und", "rote", "abc", "hemt", "kleixx", "schuxx"]
)
def test_german_words_and_short_ones_are_left_as_they_are(word: str) -> None:
    assert nearest_name(word) is None
