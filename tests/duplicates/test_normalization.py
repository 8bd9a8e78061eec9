"""Normalisation: which spellings are equal, and which products differ."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.duplicates.normalization import VERSION, identity, identity_key, normalised
from app.types import Product

WORDS = ("kestrel", "marria", "navy", "blazer", "coat", "linen", "XJ200", "café", "bodies")


def key(title: str, **fields: object) -> str:
    return identity_key(Product("any", title=title, **fields))  # type: ignore[arg-type]


def jacket(title: str, **fields: object) -> str:
    return key(title, **({"brand": "Kestrel", "category": "T-Shirt", "year": 2020} | fields))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Marria Blazer", "MARRIA bLAZER"),
        ("Café Lumière", "Cafe\u0301 lumiere"),
        ("T-Shirt", " t  shirt. "),
        ("O'Leary", "O\u2019Leary"),
        ("Straße", "STRASSE"),
        ("Łódź Ærø", "lodz aero"),
        ("\uff21\uff22\uff23 2", "abc 2"),
        ("İzmir", "izmir"),
        ("Alder & Pine", "Alder and Pine"),
        ("Alder & Pine", "Alder Pine"),
        ("1,5 l", "1.5 L"),
        ("Nova™ hat", "Nova hat"),
        ("gray", "grey"),
    ],
)
def test_spellings_agree(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(
    ("singular", "plural"),
    [
        ("hat", "hats"), ("dress", "dresses"), ("glass", "glasses"), ("blouse", "blouses"),
        ("box", "boxes"), ("watch", "watches"), ("brush", "brushes"), ("body", "bodies"),
        ("hoodie", "hoodies"), ("shoe", "shoes"), ("tie", "ties"), ("toe", "toes"),
        ("vase", "vases"), ("horse", "horses"), ("bus", "buses"), ("lens", "lenses"),
        ("canvas", "canvases"), ("scarf", "scarves"), ("scarf", "scarfs"), ("glove", "gloves"),
        ("man", "men"), ("woman", "women"), ("womens", "women's"), ("potato", "potatoes"),
        ("sneaker", "sneakers"), ("iris", "irises"), ("knife", "knives"), ("jean", "jeans"),
    ],
)  # fmt: skip
def test_singular_and_plural_agree(singular: str, plural: str) -> None:
    assert normalised(singular) == normalised(plural)


@pytest.mark.parametrize(
    ("one", "other"),
    [("car", "care"), ("cap", "cape"), ("den", "dense"), ("toe", "to"), ("plan", "plane"),
     ("dress", "dre"), ("save", "safe"), ("1.5", "15"), ("1.5", "5.1"), ("की", "का"), ("が", "か")],
)  # fmt: skip
def test_other_words_stay_apart(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


@given(st.text())
def test_any_text_has_words_of_letters_and_digits_alone(text: str) -> None:
    words = normalised(text)
    assert all(word and not word.isspace() and "|" not in word for word in words)
    assert normalised(text.replace(" ", "  ") + " !") == words


@given(st.permutations(WORDS))
def test_the_order_of_words_makes_no_difference(words: list[str]) -> None:
    assert jacket(" ".join(words)) == jacket(" ".join(WORDS))


@pytest.mark.parametrize(
    "title",
    ["Kestrel Marria t-shirt", "marria T SHIRTS", "Marria tshirt", "t-shirt, Marria",
     "KESTREL Marria T-Shirt 2020", "Marria t-shirt XL", "Marria t-shirt size 42",
     "Marria t-shirt EU 42.5 (2020)", "large Marria t-shirt", "Marria t-shirt US M"],
)  # fmt: skip
def test_year_size_and_the_brand_do_not_count(title: str) -> None:
    assert jacket(title, year=2020) == jacket("Marria t-shirt", year=2019)


@pytest.mark.parametrize("title", ["O Leary Nova hat", "OLeary Nova hat", "o'leary nova hats"])
def test_the_brand_is_known_in_any_spelling(title: str) -> None:
    assert key(title, brand="O'Leary") == key("Nova hat", brand="O'Leary")


@pytest.mark.parametrize(
    ("title", "fields"),
    [
        ("Marria t-shirt", {"brand": "Solano"}),
        ("Marria t-shirt", {"brand": None}),
        ("Marria t-shirt", {"category": "Shirt"}),
        ("Marria t-shirt", {"category": None}),
        ("Marria t-shirt", {"colour": "red"}),
        ("Maruna t-shirt", {}),
        ("Marria t-shirt limited", {}),
        ("Marria t-shirt 7", {}),
        ("Marria t-shirt 2019", {}),
        ("Marria t-shirt 5 l", {}),
    ],
)
def test_different_products_have_different_keys(title: str, fields: dict[str, object]) -> None:
    assert jacket(title, **fields) != jacket("Marria t-shirt")


def test_models_are_told_apart_by_their_numbers() -> None:
    titles = ["iPhone 12", "iPhone 13", "iPhone 13 64GB", "iPhone 13 128GB", "iPhone 13 mini"]
    assert len({key(title) for title in titles}) == len(titles)


def test_four_digits_are_a_year_only_if_they_equal_the_products_year() -> None:
    assert identity(Product("A", "Nova 2020", year=2020)).numbers == ()
    assert identity(Product("A", "Nova 2021", year=2020)).numbers == ("2021",)
    assert identity(Product("A", "Nova 1949")).numbers == ("1949",)
    assert identity(Product("A", "Nova 2039")).years == ("2039",)


def test_a_colour_in_the_title_stands_in_for_an_empty_column() -> None:
    navy = key("Marria navy hat", colour="Navy")
    assert key("Marria navy hat") == navy != key("Marria navy hat", colour="blue")


def test_two_products_with_two_colours_in_the_title_differ_by_their_columns() -> None:
    columns: list[str | None] = ["black", "white", None]
    assert len({key("Tee black or white", colour=colour) for colour in columns}) == 3


@pytest.mark.parametrize("title", ["", " ", "!?", "Kestrel", "Kestrel 2020", "XL", "size 42"])
def test_a_title_without_words_has_no_key(title: str) -> None:
    assert jacket(title) == ""


@given(st.text(), st.text(max_size=20), st.text(max_size=20))
def test_any_product_has_a_key_that_fits_an_index(title: str, brand: str, colour: str) -> None:
    made = key(title, brand=brand, colour=colour)
    assert made == "" or made.startswith(VERSION)
    assert len((key(title * 500, brand=brand) or VERSION).encode()) < 2600


def test_long_titles_that_differ_at_the_end_have_different_keys() -> None:
    titles = [" ".join(f"word{n}" for n in range(size)) for size in range(500, 520)]
    keys = [key(title) for title in titles]
    assert len(set(keys)) == len(keys) and max(map(len, keys)) <= 600


def test_a_long_repetitive_brand_is_normalised_quickly() -> None:
    assert key("a" * 300 + " hat", brand="a " * 250)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Galaxy S 10", "Galaxy M 10"), ("Camera Model S", "Camera Model L"),
        ("Peugeot 2008", "Peugeot"), ("Heater 2000 watt", "Heater 1990 watt"),
        ("Mouse 1980 dpi", "Mouse 2000 dpi"),
    ],
)  # fmt: skip
def test_a_letter_or_a_number_of_the_model_is_neither_size_nor_year(one: str, other: str) -> None:
    assert identity_key(Product("a", one)) != identity_key(Product("b", other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Alder shirt S", "Alder shirt XL"), ("Alder shirt (M)", "Alder shirt, size 12"),
        ("Alder shirt 2019", "Alder shirt 2021"), ("Alder shirt M 2019", "Alder shirt L 2021"),
    ],
)  # fmt: skip
def test_sizes_and_years_at_the_end_of_a_title_do_not_count(one: str, other: str) -> None:
    assert identity_key(Product("a", one)) == identity_key(Product("b", other))
