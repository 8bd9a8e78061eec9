"""German words of kinds and colours, and words that say what is not asked for."""

from __future__ import annotations

import numpy as np
import pytest

from app.encoders import colour_words, german_words, word_space
from app.encoders.embedded_versions import NEWEST
from app.encoders.negations import with_minus_signs


@pytest.mark.parametrize(
    ("german", "english"),
    [
        ("Schuh", "shoe"), ("Schuhe", "shoes"), ("Tasche", "bag"), ("Hemd", "shirt"),
        ("Äpfel", "apple"), ("Sommerkleid", "dress"), ("gestreiftes Hemd", "striped shirt"),
        ("rote Teekanne", "red teapot"), ("schwarzer Rock", "black skirt"),
        ("blaue Hosen und Hüte", "blue trousers and hats"), ("Rock", "rock"),
        ("Lampe ohne Rot", "lamp -red"), ("lamp not dark red", 'lamp -"dark red"'),
    ],
)  # fmt: skip
def test_german_words_point_where_the_english_ones_do(german: str, english: str) -> None:
    space = word_space.word_space(NEWEST)
    read, expected = space.read(german), space.read(english)
    assert read.confidence == expected.confidence
    assert read.vector @ expected.vector > 0.999
    np.testing.assert_array_equal(read.colours, expected.colours)


def test_a_compound_is_a_kind_of_what_its_last_part_names_but_for_some() -> None:
    general = {word: german_words.general(word) for word in ("turnschuh", "handschuh", "schuh")}
    assert general == {"turnschuh": ("shoe",), "handschuh": (), "schuh": ()}


def test_german_names_of_colours_are_the_same_mixtures_as_the_english_ones() -> None:
    for german, english in (("türkise", "turquoise"), ("roten", "red"), ("hellblau", "light blue")):
        [name] = word_space.tokens(german)
        np.testing.assert_array_equal(
            colour_words.colour_row(name), colour_words.colour_row(english), err_msg=german
        )


def test_no_word_that_is_clearly_german_is_a_name_in_english() -> None:
    names = set(word_space.word_space(NEWEST).phrases)
    assert set(german_words.CLEAR) & names == {"beige", "bordeaux", "pullover"}


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("not red", "-red"), ("lamp not red", "lamp -red"), ("Lampe ohne Rot", "Lampe -Rot"),
        ("nicht rot", "-rot"), ("keine roten Schuhe", "-roten Schuhe"),
        ("without dark red stripes", '-"dark red" stripes'), ("mug without handle", "mug -handle"),
        ('without "long sleeve"', '-"long sleeve"'), ("not", "not"), ("NOT 123", "NOT 123"),
        ('"not red"', '"not red"'), ("knot red", "knot red"), ("lamp -red", "lamp -red"),
    ],
)  # fmt: skip
def test_what_a_text_negates_gets_a_minus_sign(text: str, read: str) -> None:
    assert with_minus_signs(text) == read
    assert with_minus_signs(read) == read
