"""Photos with several objects: their regions are searched, and the merged list is exact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from app.bootstrap import App
from app.config import Settings
from app.images.decoding import decode
from app.search import regions
from app.search.filters import parse
from app.search.query_encoder import crop
from app.search.regions import ObjectLimits, limits_of
from app.search.retrieval import best_hits
from app.search.vector_cache import PhotoObjects, QueryPicture, VectorCache
from app.types import Hit, Model, Query, Region, SearchResult
from support.colours import photo
from support.region_colours import RegionColourEncoder, choose_region_colours
from support.scenes import FIRST, SECOND, first_skus, scene, sku, two
from support.shop import add, numbered
from support.text_encoder import skus


@pytest.fixture
def app(settings: Settings) -> Iterator[App]:
    """All services with an encoder that has a feature map, and forty products with an index."""
    with App(settings, choose=choose_region_colours) as app:
        add(app, numbered(40))
        app.indexer.rebuild()
        yield app


def encoder(app: App) -> RegionColourEncoder:
    value = app.encoder()
    assert isinstance(value, RegionColourEncoder)
    return value


def test_both_objects_of_a_photo_are_regions_with_their_products_first(app: App) -> None:
    result = app.search.search(Query(picture=two(), k=5))
    assert first_skus(result) == {sku(FIRST), sku(SECOND)}
    assert set(skus(result)[:2]) == first_skus(result)
    for region in result.regions:
        left, top, right, bottom = region.box
        assert (right < 0.6) if region.matches[0].product.sku == sku(FIRST) else (left > 0.4)
        assert 0 <= top < bottom <= 1
        assert len(region.matches) == 5


def test_the_merged_list_has_the_best_similarity_of_each_product_in_any_region(app: App) -> None:
    result = app.search.search(Query(picture=two(), k=40))
    similarities = [match.similarity for match in result.matches]
    assert similarities == sorted(similarities, reverse=True) and len(similarities) == 40
    merged = {match.product.sku: match.similarity for match in result.matches}
    for region in result.regions:
        assert all(merged[match.product.sku] >= match.similarity for match in region.matches)


@pytest.mark.parametrize(("lead", "merged"), [(-2.0, True), (2.1, False)])
def test_objects_that_do_not_lead_the_whole_are_regions_only(
    app: App, monkeypatch: pytest.MonkeyPatch, lead: float, merged: bool
) -> None:
    query = Query(picture=two(), k=5)
    whole = skus(app.search.search(replace(query, objects=False)))
    both = {sku(FIRST), sku(SECOND)}
    assert set(whole[:2]) != both
    monkeypatch.setattr(regions, "LIMITS", {("", ""): ObjectLimits(lead=lead)})
    cache = VectorCache()
    result = app.search.search(query, cache)
    found = cache.get_objects(QueryPicture(two()), encoder(app).fingerprint)
    assert found is not None and found.leads is merged and found.texture is not None
    assert first_skus(result) == both
    if merged:
        assert set(skus(result)[:2]) == both
    else:
        assert skus(result) == whole


def test_a_share_of_the_gain_at_the_best_match_of_the_first_object_counts_as_lead(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = Query(picture=two(), k=40)

    def search(lead: float, gain: float, **options: Any) -> tuple[SearchResult, PhotoObjects]:
        limits = ObjectLimits(lead=lead, gain=gain)
        monkeypatch.setattr(regions, "LIMITS", {("", ""): limits})
        cache = VectorCache()
        result = app.search.search(replace(query, **options), cache)
        found = cache.get_objects(QueryPicture(two()), encoder(app).fingerprint)
        assert found is not None
        return result, found

    result, found = search(2.1, 0)
    of_whole = {match.product.sku: match.similarity or 0 for match in result.matches}
    [first] = [each.matches[0] for each in result.regions if each.box == found.objects[0].box]
    best = first.similarity or 0
    lead, gain = best - max(of_whole.values()), best - of_whole[first.product.sku]
    assert gain > lead + 0.05
    # In the statement of all lists, and with a filter in one of its own.
    for filters in (query.filters, parse([f"sku={sku(number)}" for number in range(40)])):
        for share in (0.5, 1.0):
            for needed in (lead + share * gain - 0.01, lead + share * gain + 0.01):
                _, found = search(needed, share, filters=filters)
                assert found.leads is (needed < lead + share * gain)


@pytest.mark.parametrize("lead", [None, -2.0])
def test_objects_beyond_those_that_may_count_are_regions_only(
    app: App, monkeypatch: pytest.MonkeyPatch, lead: float | None
) -> None:
    places = (FIRST, (10, 20, 120, 130)), (SECOND, (270, 20, 380, 130)), (5, (140, 170, 250, 280))
    query = Query(picture=scene(*places), k=2, fold=True)
    monkeypatch.setattr(regions, "LIMITS", {("", ""): ObjectLimits(lead=lead, most=3, merged=2)})
    for _ in range(2):  # by several statements, then by one
        result = app.search.search(query)
        shown = [region.matches[0].product.sku for region in result.regions]
        assert set(shown) == {sku(FIRST), sku(SECOND), sku(5)}
        assert set(skus(result)) == set(shown[:2])


def test_each_version_of_the_embedded_encoder_has_its_own_limits() -> None:
    first, second, quantized = (
        limits_of(Model(1, name, revision, 512, ""))
        for name, revision in (("embedded", "1-a"), ("embedded", "2-a"), ("embedded-int8", "2-a"))
    )
    assert (first.sure, first.lead, first.most) == (0.7, None, 2)
    assert (second.most, second.merged, second.exact) == (4, 2, 2)
    assert second == quantized and second.lead is not None and second.sure != first.sure


def random_scene(random: Random) -> bytes:
    """A room with two or three photos, which cover their windows in part."""
    places = []
    for left in random.sample((0, 135, 270), random.choice((2, 3))):
        side, top = random.randint(70, 130), random.randint(0, 160)
        places.append((random.randrange(40), (left, top, left + side, top + side)))
    return scene(*places)


def test_the_first_match_of_each_object_is_first_when_its_box_is_searched(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = ObjectLimits(exact=2, most=4)
    monkeypatch.setattr(regions, "LIMITS", {("", ""): limits})
    random, boxes, filters = Random(5), 0, parse([f"sku={sku(each)}" for each in range(0, 40, 2)])
    for number in range(6):
        picture, cache = random_scene(random), VectorCache()
        query = Query(picture=picture, k=5, untrusted=True)
        if number % 2:
            query = replace(query, filters=filters)
        for region in app.search.search(query, cache).regions:
            percent = tuple(round(100 * edge) / 100 for edge in region.box)
            # By the page and its session, by a stored photo's box, and by a program of its own.
            for box, kept in ((region.box, cache), (percent, cache), (region.box, VectorCache())):
                alone = app.search.search(replace(query, region=box), kept)
                assert skus(alone) == [each.product.sku for each in region.matches]
                assert alone.matches[0].similarity == region.matches[0].similarity
            boxes += 1
            second = replace(query, region=percent, shown=skus(alone))
            further = skus(app.search.search(second, cache))
            both = skus(app.search.search(replace(query, region=percent, k=10), cache))
            assert [*skus(alone), *further] == both
    assert boxes >= 18


def test_a_part_that_is_no_object_is_encoded_by_itself(app: App) -> None:
    cache = VectorCache()
    result = app.search.search(Query(picture=two(), k=5), cache)
    maps = encoder(app).maps
    left, top, right, bottom = result.regions[0].box
    for kept in (cache, VectorCache()):
        for query in (
            Query(picture=two(), k=5, region=(left, top, right, bottom - 0.02)),
            Query(picture=two(), k=5, region=(left, top, right, bottom), objects=False),
        ):
            alone = app.search.search(query, kept)
            assert query.region is not None
            vector = encoder(app).encode_pictures([cut(query.region)])[0]
            by_vector = app.search.search(
                Query(vector=vector, k=5, model_id=app.catalog.model().id)
            )
            assert skus(alone) == skus(by_vector)
    assert encoder(app).maps == maps


def cut(region: Region) -> Image.Image:
    return crop(decode(two()), region)


def test_a_region_given_by_the_user_wins(app: App) -> None:
    box = (0.0, 0.1, 0.35, 0.6)
    result = app.search.search(Query(picture=two(), k=5, region=box))
    assert result.regions == () and encoder(app).maps == 0
    assert skus(result)[0] == sku(FIRST)


@pytest.mark.parametrize("off", [{"objects": False}, {"more_pictures": (photo(3),)}])
def test_without_objects_and_with_several_photos_the_whole_is_searched(
    app: App, off: dict[str, object]
) -> None:
    result = app.search.search(replace(Query(picture=two(), k=5), **off))
    assert result.regions == () and encoder(app).maps == 0


def test_a_photo_with_a_sure_match_is_searched_as_a_whole_only(app: App) -> None:
    result = app.search.search(Query(picture=photo(FIRST), k=5))
    assert skus(result)[0] == sku(FIRST)
    assert result.regions == () and encoder(app).maps == 0


def test_a_filter_applies_to_every_region(app: App) -> None:
    only = parse([f"sku={sku(SECOND)}", f"sku={sku(3)}"])
    result = app.search.search(Query(picture=two(), k=5, filters=only))
    assert skus(result)[0] == sku(SECOND) and set(skus(result)) == {sku(SECOND), sku(3)}
    for region in result.regions:
        assert {match.product.sku for match in region.matches} == {sku(SECOND), sku(3)}


def test_the_next_page_searches_the_same_regions_and_repeats_nothing(app: App) -> None:
    cache, query = VectorCache(), Query(picture=two(), k=15)
    first = app.search.search(query, cache)
    second = app.search.search(replace(query, shown=first.shown), cache)
    third = app.search.search(replace(query, shown=(*first.shown, *second.shown)), cache)
    assert encoder(app).maps == 1
    boxes = [region.box for region in first.regions]
    assert [region.box for region in second.regions] == boxes
    pages = [*skus(first), *skus(second), *skus(third)]
    assert pages == skus(app.search.search(replace(query, k=40), cache))
    for region in second.regions:
        assert not {match.product.sku for match in region.matches} & set(first.shown)


def test_without_a_cache_the_next_page_finds_the_same_regions_again(app: App) -> None:
    query = Query(picture=two(), k=3)
    first = app.search.search(query)
    second = app.search.search(replace(query, shown=first.shown))
    assert [each.box for each in second.regions] == [each.box for each in first.regions]
    assert [*skus(first), *skus(second)] == skus(app.search.search(replace(query, k=6)))


def test_folding_and_a_minimum_similarity_apply_to_the_merged_list(app: App) -> None:
    whole = app.search.search(Query(picture=two(), k=40))
    least = whole.matches[4].similarity
    assert least is not None
    result = app.search.search(Query(picture=two(), k=40, min_similarity=least, fold=True))
    assert skus(result) == skus(whole)[:5]


def test_a_product_added_after_the_build_is_found_in_its_region(app: App) -> None:
    add(app, {"NEW": [77]})
    result = app.search.search(Query(picture=scene((77, (30, 60, 180, 210))), k=3))
    assert skus(result)[0] == "NEW" and "NEW" in first_skus(result)


def test_a_product_deleted_after_its_region_was_found_is_not_shown(app: App) -> None:
    cache, query = VectorCache(), Query(picture=two(), k=5)
    assert sku(FIRST) in skus(app.search.search(query, cache))
    app.catalog.delete([sku(FIRST)])
    result = app.search.search(query, cache)
    assert encoder(app).maps == 1
    shown = {match.product.sku for region in result.regions for match in region.matches}
    assert sku(FIRST) not in {*skus(result), *shown}


def test_without_a_build_all_pictures_are_compared_with_the_windows(settings: Settings) -> None:
    with App(settings, choose=choose_region_colours) as app:
        add(app, numbered(40))
        result = app.search.search(Query(picture=two(), k=5))
    assert first_skus(result) == {sku(FIRST), sku(SECOND)}


def test_an_untrusted_photo_is_decoded_only_while_its_search_holds_no_place(app: App) -> None:
    query = Query(picture=two(), k=5)
    expected = app.search.search(query)
    sandbox = Recording(app)
    vars(app)["sandbox"] = sandbox
    result = app.search.search(replace(query, untrusted=True))
    assert skus(result) == skus(expected) and first_skus(result) == first_skus(expected)
    assert sandbox.running == [0, 0]  # the whole, which the objects are cut from, and the map
    assert encoder(app).maps == 2, "one map for each of the two searches"
    assert result.plan.ms["decode"] > 0


class Recording:
    """Decodes like a sandbox and notes how many searches had a place meanwhile."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.running: list[int] = []

    def decode(self, data: bytes, *, at_least: int | None = None) -> Image.Image:
        self.running.append(self._app.admission.running)
        return decode(data, at_least=at_least)

    def close(self) -> None:
        """Nothing to stop."""


hit_lists = st.lists(
    st.lists(st.builds(Hit, st.integers(1, 9), st.integers(1, 99), st.floats(0, 2)), max_size=9),
    min_size=1, max_size=4,
)  # fmt: skip


@given(lists=hit_lists)
@hypothesis_settings(suppress_health_check=[HealthCheck.too_slow])
def test_merging_keeps_the_nearest_hit_of_each_product_in_order(lists: list[list[Hit]]) -> None:
    merged = best_hits(lists)
    every = [hit for hits in lists for hit in hits]
    assert {hit.product_id for hit in merged} == {hit.product_id for hit in every}
    for hit in merged:
        assert hit.distance == min(
            other.distance for other in every if other.product_id == hit.product_id
        )
    assert np.all(np.diff([hit.distance for hit in merged]) >= 0)
