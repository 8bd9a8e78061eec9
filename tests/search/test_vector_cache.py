"""VectorCache: a repeated picture is not encoded again, and another always is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.bootstrap import App
from app.config import Settings
from app.encoders.base import EncoderChoice
from app.errors import BadImage
from app.search.filters import parse
from app.search.vector_cache import QueryPicture, VectorCache
from app.types import Query
from support.colours import photo
from support.shop import add, numbered
from support.sources import WatchedEncoder
from support.text_encoder import skus


@pytest.fixture
def encoder() -> WatchedEncoder:
    return WatchedEncoder()


@pytest.fixture
def watched(settings: Settings, encoder: WatchedEncoder, app: App) -> App:
    """Twenty products, and services whose encoder counts."""
    add(app, numbered(20))
    return App(settings, choose=lambda model, **_: EncoderChoice(encoder, "watched"))


def test_a_changed_filter_and_the_next_page_encode_nothing(
    watched: App, encoder: WatchedEncoder
) -> None:
    cache = VectorCache()
    with watched as app:
        first = app.search.search(Query(picture=photo(3)), cache)
        app.search.search(Query(picture=photo(3), filters=parse(["sku=P0001"])), cache)
        app.search.search(Query(picture=photo(3), shown=first.shown), cache)
    assert encoder.encoded == 1


def test_a_second_picture_is_the_only_one_encoded(watched: App, encoder: WatchedEncoder) -> None:
    cache = VectorCache()
    with watched as app:
        app.search.search(Query(picture=photo(3)), cache)
        app.search.search(Query(picture=photo(3), more_pictures=(photo(4),)), cache)
    assert encoder.encoded == 2


def test_another_region_is_another_picture(watched: App, encoder: WatchedEncoder) -> None:
    cache = VectorCache()
    whole, part = Query(picture=photo(3)), Query(picture=photo(3), region=(0, 0, 0.5, 0.5))
    with watched as app:
        first, second = app.search.search(whole, cache), app.search.search(part, cache)
    assert encoder.encoded == 2
    assert first.matches[0].similarity != second.matches[0].similarity


@pytest.mark.parametrize("query", [
    Query(picture=photo(3), without_pictures=(photo(4),)),
    Query(picture=photo(3), more_pictures=(photo(3), photo(5)), region=(0, 0, 1, 0.5)),
    Query(more_pictures=(photo(5),)),
])  # fmt: skip
def test_cached_vectors_give_the_same_result(watched: App, query: Query) -> None:
    cache = VectorCache()
    with watched as app:
        app.search.search(query, cache)
        remembered, anew = app.search.search(query, cache), app.search.search(query)
    assert skus(remembered) == skus(anew)
    assert [m.similarity for m in remembered.matches] == [m.similarity for m in anew.matches]


def test_a_picture_that_was_refused_is_refused_again(watched: App) -> None:
    cache = VectorCache()
    with watched as app:
        for _ in range(2):
            with pytest.raises(BadImage):
                app.search.search(Query(picture=b"no picture"), cache)


def test_a_vector_of_another_encoder_is_a_cache_miss() -> None:
    cache, part = VectorCache(), QueryPicture(b"picture")
    cache.put({part: WatchedEncoder().encode_pictures([])}, "one")
    assert (list(cache.get([part], "one")), list(cache.get([part], "another"))) == (
        [part],
        [],
    )


@given(asked=st.lists(st.integers(0, 9), max_size=40))
def test_the_least_recently_used_are_evicted(asked: list[int]) -> None:
    cache = VectorCache(max_vectors=3)
    parts = [QueryPicture(bytes([number])) for number in range(10)]
    for number in asked:
        if not cache.get([parts[number]], ""):
            cache.put({parts[number]: WatchedEncoder().encode_pictures([])}, "")
    last = list(dict.fromkeys(reversed(asked)))[:3]
    assert {part.data[0] for part in cache.get(parts, "")} == set(last)
