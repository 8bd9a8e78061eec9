"""The URL of the search page: it holds the search form, and invalid parts are ignored."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadInput
from app.types import Plan, ReasonCode, SearchPath
from app.ui.components.answer_footer import ago, fallback
from app.ui.search_form.state import (
    DEFAULT,
    MAX_PAGE,
    PAGE_SIZES,
    SearchFormState,
    Sorting,
    to_filters,
)
from app.ui.search_form.url_state import PARAMETERS, from_url, to_url

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).map(str.strip)
VALUES = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
    unique=True, max_size=3,
).map(tuple)  # fmt: skip


EDGE = st.integers(0, 100)


def bounds(numbers: st.SearchStrategy[float]) -> st.SearchStrategy[tuple[float | None, ...]]:
    """Two bounds in order; one of them may be missing."""
    both = st.tuples(numbers, numbers).map(lambda pair: tuple(sorted(pair)))
    return both | st.tuples(numbers, st.none()) | st.tuples(st.none(), numbers)


def share(least: int, most: int) -> st.SearchStrategy[float]:
    return st.integers(100 * least, 100 * most).map(lambda hundredths: hundredths / 100)


@st.composite
def forms(draw: st.DrawFn) -> SearchFormState:
    years = draw(bounds(st.integers(-(2**31), 2**31 - 1)))
    prices = draw(bounds(st.integers(0, 10**9).map(lambda cents: cents / 100)))
    name = draw(st.sampled_from(["photo", "shared", "link", "sku"]))
    given = {name: draw(WORDS)}
    edges = [sorted(draw(st.lists(EDGE, min_size=2, max_size=2, unique=True))) for _ in "xy"]
    box = (edges[0][0], edges[1][0], edges[0][1], edges[1][1])
    return SearchFormState(
        **given, box=draw(st.none() | st.just(box)) if given[name] and name != "sku" else None,
        words=draw(WORDS), without=draw(WORDS),
        weight=draw(share(0, 1)), reader=draw(st.sampled_from(["automatic", "model", "catalogue"])),
        brand=draw(VALUES), category=draw(VALUES), colour=draw(VALUES),
        year_from=years[0], year_to=years[1], price_from=prices[0], price_to=prices[1],
        min_similarity=draw(st.none() | share(-1, 1)), near_match=draw(st.none() | share(0, 2)),
        fold=draw(st.booleans()), k=draw(st.sampled_from(PAGE_SIZES)),
        sort=draw(st.sampled_from(get_args(Sorting))), page=draw(st.integers(1, MAX_PAGE)),
    )  # type: ignore[arg-type] # fmt: skip


@given(forms())
def test_a_url_holds_the_whole_form(form: SearchFormState) -> None:
    assert from_url(to_url(form)) == (form, ())


@given(st.dictionaries(st.sampled_from([*PARAMETERS, "utm"]), st.lists(st.text(), max_size=3)))
def test_every_url_is_read_without_an_exception(address: dict[str, list[str]]) -> None:
    form, errors = from_url(address)
    assert from_url(to_url(form)) == (form, ())
    assert all(error.endswith(".") for error in errors)


def test_defaults_are_not_in_the_url() -> None:
    assert to_url(DEFAULT) == {}


def test_a_photo_an_image_and_a_product_exclude_each_other_and_a_box_needs_a_picture() -> None:
    address = {"photo": ["a"], "image": ["b"], "sku": ["c"], "box": ["0,0,50,50"]}
    assert from_url(address)[0] == SearchFormState(photo="a", box=(0, 0, 50, 50))
    assert from_url({"sku": ["c"], "box": ["0,0,50,50"]})[0] == SearchFormState(sku="c")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("k", "13", "one of 12, 24, 48"),
        ("min", "much", "number from -1 to 1"),
        ("near", "nan", "number from 0 to 2"),
        ("weight", "7", "number from 0 to 1"),
        ("year", "20x9..2020", "not a whole number"),
        ("price", "30..10", "ends before it begins"),
        ("price", "free", "not a number such as 12.50"),
        ("page", "0", "number from 1 to 200"),
        ("box", "0,0,200,100", "in percent"),
        ("box", "left", "in percent"),
        ("sort", "random", "one of best, newest"),
        ("fold", "perhaps", "one of 1, 0"),
        ("reader", "me", "one of automatic, model, catalogue"),
        ("brand", "a\0b", "NUL"),
    ],
)
def test_an_invalid_parameter_is_left_out_with_an_error(name: str, value: str, text: str) -> None:
    form, errors = from_url({name: [value], "text": ["lamp"]})
    assert form == SearchFormState(words="lamp")
    assert len(errors) == 1 and text in errors[0]


def test_one_number_is_a_range_of_one_value() -> None:
    assert from_url({"year": ["2019"]})[0] == SearchFormState(year_from=2019, year_to=2019)


def test_the_form_becomes_filters() -> None:
    form = SearchFormState(brand=("Kestrel", "=x "), year_from=2019, price_from=0.1, price_to=12.5)
    found = to_filters(form)
    assert found.columns == {"brand": ("Kestrel", "=x ")}
    assert found.at_least == {"year": 2019, "price": Decimal("0.1")}
    assert found.at_most == {"price": Decimal("12.5")}


def test_a_reversed_range_is_refused() -> None:
    with pytest.raises(BadInput, match="swap its ends"):
        to_filters(SearchFormState(year_from=2020, year_to=2019))


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (timedelta(seconds=-3), "just now"),
        (timedelta(seconds=59), "just now"),
        (timedelta(minutes=1), "1 minute ago"),
        (timedelta(hours=2, minutes=59), "2 hours ago"),
        (timedelta(days=400), "400 days ago"),
    ],
)
def test_an_age_is_shown_in_its_largest_unit(age: timedelta, text: str) -> None:
    assert ago(age) == text


@pytest.mark.parametrize(
    ("path", "code", "expected"),
    [
        ("faiss", "build", False),
        ("faiss-filtered", "filter", False),
        ("exact", "filter", False),
        ("words", "words", False),
        ("exact", "no_build", True),
        ("exact", "file", True),
        ("exact", "few_nominated", True),
        ("pgvector", "large_delta", True),
    ],
)
def test_only_a_path_that_is_not_the_first_choice_is_a_fallback(
    path: SearchPath, code: ReasonCode, expected: bool
) -> None:
    assert fallback(Plan(path, "a sentence", code, "colours")) == expected
