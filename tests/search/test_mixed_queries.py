"""Queries of several pictures, parts of pictures and words, and how their lists are fused."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.bootstrap import App
from app.config import Settings
from app.encoders.base import EncoderChoice
from app.errors import BadInput
from app.search.fusion import fuse
from app.search.query_encoder import EncodedQuery
from app.types import Query
from support.colours import photo
from support.copies import copied_for
from support.shop import add, numbered, vectors
from support.text_encoder import TextEncoder, add_titled, ask, skus
from support.years_shop import fill_years


@pytest.fixture
def reading(settings: Settings) -> Iterator[App]:
    """The same services with an encoder that reads words."""
    with App(settings, choose=lambda model, **_: EncoderChoice(TextEncoder(), "reads")) as app:
        yield app


database_url = copied_for("years", fill_years)


def test_several_pictures_are_averaged(app: App) -> None:
    add(app, numbered(40))
    [a, b] = vectors(app, [1000, 2000])
    mean = (a + b) / 2
    vector = app.search.search(Query(vector=mean, model_id=1, k=5))
    pictures = ask(app, 1000, more_pictures=(photo(2000),), k=5)
    assert [(m.product.sku, round(m.similarity or 0, 5)) for m in pictures.matches] == [
        (m.product.sku, round(m.similarity or 0, 5)) for m in vector.matches
    ]


def test_a_region_is_searched_as_if_it_were_the_whole_picture(app: App) -> None:
    from io import BytesIO

    from PIL import Image

    add(app, numbered(40))
    both = Image.new("RGB", (200, 100))
    for n, place in ((4, 0), (9, 100)):
        part = Image.open(BytesIO(photo(n))).resize((100, 100), Image.Resampling.NEAREST)
        both.paste(part, (place, 0))
    file = BytesIO()
    both.save(file, "PNG")
    for region, sku in (((0, 0, 0.5, 1), "P0004"), ((0.5, 0, 1, 1), "P0009")):
        result = app.search.search(Query(picture=file.getvalue(), region=region, k=1))
        assert skus(result) == [sku]
        assert result.matches[0].similarity == pytest.approx(1, abs=1e-3)


def test_negative_examples_move_the_query_away(app: App) -> None:
    add(app, {**numbered(40), "A": [1000], "B": [2000]})
    liked = ask(app, 1000, more_pictures=(photo(2000),), k=2)
    assert set(skus(liked)) == {"A", "B"}
    without = ask(app, 1000, more_pictures=(photo(2000),), without_pictures=(photo(2000),), k=42)
    assert skus(without)[0] == "A"
    assert skus(without).index("B") > 0
    with pytest.raises(BadInput, match="cancel"):
        ask(app, 1000, without_pictures=(photo(1000),), without_weight=1.0)


def test_words_are_found_in_the_catalogue_whatever_the_model_reads(years: App) -> None:
    result = years.search.search(Query(words="coat kestrel LÖNG", k=10, fold=True))
    assert result.plan.path == "words" and result.plan.words == "catalogue"
    assert result.matches[0].product.title == "Kestrel long coat"
    assert result.matches[0].product.sku == "Y2023", "equally like the words: the newest stays"
    assert result.matches[0].similarity is None
    assert len(result.matches[0].folded) == 5
    nothing = years.search.search(Query(words="zzz' & | ! \\ :* <->"))
    assert nothing.matches == () and nothing.plan.shortfall


def test_words_alone_cannot_be_compared_by_distance(years: App) -> None:
    for more in ({"near_query": 0.5}, {"without_pictures": (photo(1),)}):
        with pytest.raises(BadInput, match="no picture to compare"):
            years.search.search(Query(words="coat", **more))  # type: ignore[arg-type]


@pytest.mark.parametrize("words", ["coat -red", 'coat -"red thing"', "-red coat"])
def test_a_word_after_a_minus_is_excluded(app: App, words: str) -> None:
    add_titled(app, "COAT", "a coat", 1)
    add_titled(app, "BOTH", "a coat, red thing", 2)
    add_titled(app, "RED", "red thing", 3)
    assert skus(app.search.search(Query(words=words))) == ["COAT"]
    assert app.search.search(Query(words="-red")).matches == ()


def test_too_long_words_are_refused(app: App) -> None:
    for more in ({"words": "x " * 600}, {"words": "x", "without_words": "y" * 2000}):
        with pytest.raises(BadInput, match="at most 1000"):
            app.search.search(Query(**more))  # type: ignore[arg-type]


def test_the_plan_names_what_read_the_words_on_every_path(reading: App) -> None:
    add(reading, numbered(60))
    reading.indexer.rebuild()
    for _ in range(3):
        plan = reading.search.search(Query(words="33", words_by="model")).plan
        assert (plan.path, plan.words) == ("faiss", "model")


@pytest.mark.parametrize(("by", "expected"), [("model", 1), ("catalogue", 0), (None, 1)])
def test_queries_by_words_are_sampled_if_the_model_read_them(
    settings: Settings, sql: psycopg.Connection, by: str | None, expected: int
) -> None:
    with App(settings, choose=lambda model, **_: EncoderChoice(TextEncoder(), "reads")) as app:
        add(app, numbered(20))
        app.search.search(Query(words="title 7", words_by=by, k=3))  # type: ignore[arg-type]
    assert sql.execute("SELECT count(*) FROM query_sample").fetchone() == (expected,)


def test_words_with_a_model_that_reads_are_fused(reading: App) -> None:
    add_titled(reading, "TEXT", "a 33 red coat", 1)
    add_titled(reading, "LOOKS", "nothing of it", 33)
    add_titled(reading, "BOTH", "coat 33 red", 33)
    add(reading, numbered(20, first=100))
    both = reading.search.search(Query(words="red coat 33", k=3))
    assert skus(both)[0] == "BOTH" and set(skus(both)) == {"BOTH", "TEXT", "LOOKS"}
    assert both.plan.words == "model and catalogue"
    model = reading.search.search(Query(words="red coat 33", k=2, words_by="model"))
    assert set(skus(model)) == {"LOOKS", "BOTH"} and model.plan.words == "model"
    catalogue = reading.search.search(Query(words="red coat 33", k=9, words_by="catalogue"))
    assert set(skus(catalogue)) == {"TEXT", "BOTH"} and catalogue.plan.words == "catalogue"


def test_a_picture_and_words_by_their_weight(app: App) -> None:
    add(app, numbered(40))
    add_titled(app, "RED", "red thing", 3000)
    add_titled(app, "LIKE", "blue thing", 1000)
    assert skus(ask(app, words="red", words_weight=0.0, k=1)) == ["LIKE"]
    only_words = ask(app, words="red", words_weight=1.0, k=42)
    assert skus(only_words)[0] == "RED"
    assert skus(only_words)[1:] == [sku for sku in skus(ask(app, k=42)) if sku != "RED"], (
        "what the words do not say comes in the order of the picture"
    )
    assert set(skus(ask(app, words="red", words_weight=0.5, k=2))) >= {"LIKE"}


def test_words_are_searched_within_the_filter(years: App) -> None:
    from app.search.filters import parse

    found = years.search.search(Query(words="coat", filters=parse(["year=2021"]), k=5))
    assert skus(found) == ["Y2021"]


@given(st.lists(st.lists(st.integers(0, 30), unique=True, max_size=10), max_size=4))
def test_fusion_does_not_depend_on_the_order_of_the_lists(lists: list[list[int]]) -> None:
    weighted = [(1.0, each) for each in lists]
    one, other = fuse(weighted), fuse(weighted[::-1])
    assert one == pytest.approx(other)
    assert sorted(one) == sorted({id_ for each in lists for id_ in each})
    ordered = list(one.values())
    assert ordered == sorted(ordered, reverse=True)


def test_fusion_counts_ranks_by_the_source_it_names() -> None:
    assert fuse([(1.0, [7, 8]), (1.0, [8, 9])]) == {
        8: pytest.approx(1 / 62 + 1 / 61), 7: pytest.approx(1 / 61), 9: pytest.approx(1 / 62),
    }  # fmt: skip


def test_a_query_without_vectors_has_no_direction() -> None:
    assert EncodedQuery().direction(Query(words="red")) is None
