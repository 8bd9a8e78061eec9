"""How sure a result is, and when it says that there is no close match."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.bootstrap import App
from app.cli.search_output import as_dict, print_matches
from app.config import Settings
from app.encoders.base import EMBEDDED
from app.search import confidence
from app.search.confidence import (
    ALIKE,
    BORDER,
    NO_CLOSE_MATCH,
    SHIPPED,
    TEXTURE,
    Curve,
    Curves,
    curve_for,
)
from app.search.vector_cache import PhotoObjects
from app.types import Model, Query
from support.colours import photo
from support.region_colours import choose_region_colours
from support.shop import add, numbered
from support.statements import Slow, in_statements

VERSION_2 = next(iter(SHIPPED))

CURVES = Curves(whole=Curve(0.8, 0.05, 0.75), objects=Curve(0.6, 0.05, 0.55), filled_from=0.5)


@pytest.fixture
def app(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """Services over forty products, with curves for the model."""
    with App(settings, choose=choose_region_colours) as app:
        add(app, numbered(40))
        monkeypatch.setattr(confidence, "SHIPPED", {app.encoder().fingerprint: CURVES})
        yield app


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_confidence_is_a_probability_that_rises_with_the_similarity(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert 0 <= CURVES.whole.confidence(low) <= CURVES.whole.confidence(high) <= 1


def test_at_the_midpoint_both_are_equally_likely() -> None:
    assert CURVES.whole.confidence(0.8) == pytest.approx(0.5)


def test_a_photo_of_a_product_is_close_and_sure(app: App) -> None:
    result = app.search.search(Query(picture=photo(7), k=3))
    assert result.close is True and result.confidence is not None and result.confidence > 0.9


def test_a_photo_of_nothing_in_the_catalogue_has_no_close_match(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    result = app.search.search(Query(picture=photo(5000), k=3))
    assert result.close is False and len(result.matches) == 3
    assert result.regions and all(0 <= (each.confidence or 0) < 0.5 for each in result.regions)
    print_matches(result)
    assert NO_CLOSE_MATCH in capsys.readouterr().err
    assert as_dict(result)["close"] is False


def test_a_photo_with_a_background_and_a_part_of_one_are_judged_by_the_curve_of_objects() -> None:
    model = Model(1, "colours", "1", 49, "known")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(confidence, "SHIPPED", {"known": CURVES})
        assert curve_for(model, PhotoObjects(0.5)) is CURVES.whole
        assert curve_for(model, PhotoObjects(0.49)) is CURVES.objects
        assert curve_for(model, None) is CURVES.objects


@pytest.mark.parametrize(
    ("whole", "texture", "filled"),
    [
        (0.6, None, False), (0.64, None, True), (0.5, TEXTURE, True), (0.49, TEXTURE, False),
        (0.5, 2 * TEXTURE, False), (0.61, 2 * TEXTURE, True),
        (0.3, 0.5 * TEXTURE, False), (0.45, 0.5 * TEXTURE, True),
        (0.0, 0.0, False), (0.2, 0.0, True),
    ],
)  # fmt: skip
def test_a_varied_border_needs_a_better_match_of_the_whole_and_a_plain_one_a_worse(
    whole: float, texture: float | None, filled: bool
) -> None:
    curves = replace(CURVES, per_texture=0.15)
    assert curves.is_filled(PhotoObjects(whole, texture=texture)) is filled
    assert not curves.is_filled(PhotoObjects(whole, texture=texture, leads=True))


@pytest.mark.parametrize(
    ("alike", "border", "filled"),
    [
        (None, None, True), (ALIKE, BORDER, True), (ALIKE - 0.02, BORDER, False),
        (ALIKE + 0.02, BORDER + 0.01, True), (ALIKE, BORDER + 0.02, False), (None, 1.0, False),
    ],
)  # fmt: skip
def test_unlike_tiles_and_a_border_like_the_whole_need_a_better_match(
    alike: float | None, border: float | None, filled: bool
) -> None:
    curves = replace(CURVES, per_alike=-1.0, per_border=1.0)
    photo = PhotoObjects(0.505, texture=TEXTURE, alike=alike, border=border)
    assert curves.is_filled(photo) is filled


@pytest.mark.parametrize(("fifth", "filled"), [(0.49, False), (0.51, True), (None, True)])
def test_the_fifth_nearest_product_tells_whether_a_product_fills_a_photo(
    fifth: float | None, filled: bool
) -> None:
    """One product that stands out fills no photo; curves that do not ask for it take the best."""
    photo = PhotoObjects(0.6, texture=TEXTURE, alike=ALIKE, border=BORDER, fifth=fifth)
    assert replace(CURVES, by_fifth=True).is_filled(photo) is filled
    assert CURVES.is_filled(photo)


@pytest.mark.parametrize(
    ("photo", "filled"),
    [
        # A hat and two shoes on patterned grounds, whose categories are absent:
        (PhotoObjects(0.328, texture=14.7, alike=0.356, border=0.584, fifth=0.272), True),
        (PhotoObjects(0.281, texture=12.3, alike=0.467, border=0.673, fifth=0.204), True),
        (PhotoObjects(0.363, texture=19.6, alike=0.393, border=0.613, fifth=0.294), True),
        # Loose groceries in a shop, which are in the catalogue:
        (PhotoObjects(0.467, texture=17.0, alike=0.411, border=0.731, fifth=0.176), False),
        (PhotoObjects(0.437, texture=19.3, alike=0.466, border=0.751, fifth=0.130), False),
        (PhotoObjects(0.391, texture=19.8, alike=0.630, border=0.899, fifth=0.162), False),
    ],
)
def test_the_shipped_curves_tell_clothes_on_a_pattern_from_goods_on_a_shelf(
    photo: PhotoObjects, filled: bool
) -> None:
    """What was measured on real photos; by the best similarity they were the other way round."""
    model = Model(1, EMBEDDED, "2-", 512, VERSION_2)
    assert (curve_for(model, photo) is SHIPPED[VERSION_2].whole) is filled


@pytest.mark.parametrize(("products", "k"), [(40, 12), (40, 1), (3, 12)])
def test_the_fifth_nearest_product_is_known_whatever_the_page_shows(
    settings: Settings, products: int, k: int
) -> None:
    """By one statement and by several; the last one where there are fewer."""
    seen: list[PhotoObjects] = []
    with App(settings, choose=choose_region_colours) as app:
        add(app, numbered(products))
        app.indexer.rebuild()
        nearest = app.search.search(Query(picture=photo(5000), k=5, objects=False)).matches
        slow, query = Slow(app), Query(picture=photo(5000), k=k)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(confidence, "curve_for", lambda model, found: seen.append(found))
            in_statements(app, query, patch)
            assert slow.took()
            app.search.search(query)
            assert not slow.took()
    assert len(seen) == 2
    for found in seen:
        assert found.whole == pytest.approx(nearest[0].similarity, abs=1e-5)
        assert found.fifth == pytest.approx(nearest[-1].similarity, abs=1e-5)


def test_what_stands_before_a_varied_ground_is_judged_as_an_object(app: App) -> None:
    """The same product, before a plain ground and before stripes; the whole is never `filled`."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(confidence, "curve_for", lambda model, found: seen.append(found))
        for stripes in (False, True):
            app.search.search(Query(picture=before_a_ground(5000, stripes=stripes), k=3))
    plain, striped = seen
    assert plain.texture == pytest.approx(0, abs=1) and striped.texture > 50
    assert plain.alike > striped.alike and plain.border < 1 and striped.border < 1


def before_a_ground(number: int, *, stripes: bool) -> bytes:
    """A PNG of a photo of `numbered` products before a grey wall, or before stripes."""
    pixels = np.full((320, 320, 3), 128, np.uint8)
    if stripes:
        pixels[(np.arange(320) // 20 % 2 == 0)[:, None] ^ (np.arange(320) // 20 % 2 == 0)] = 0
    with Image.open(BytesIO(photo(number))) as picture:
        room = Image.fromarray(pixels)
        room.paste(picture.resize((120, 120), Image.Resampling.NEAREST), (100, 100))
    file = BytesIO()
    room.save(file, "PNG")
    return file.getvalue()


def test_without_a_picture_and_on_later_pages_nothing_is_said(app: App) -> None:
    for query in (Query(sku="P0001", k=3), Query(picture=photo(7), k=3, shown=("P0001",))):
        result = app.search.search(query)
        assert (result.confidence, result.close) == (None, None)


def test_a_model_without_curves_has_no_confidence(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confidence, "SHIPPED", {})
    result = app.search.search(Query(picture=photo(5000), k=3))
    assert (result.confidence, result.close) == (None, None)
    assert all(region.confidence is None for region in result.regions)
