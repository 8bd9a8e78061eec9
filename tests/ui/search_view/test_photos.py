"""Photos on the search page: uploads, parts of a photo, and whether it has a close match."""

from __future__ import annotations

import io
from dataclasses import fields, is_dataclass

import pytest
from PIL import Image

from app.bootstrap import App
from app.search import confidence
from app.ui import shared
from app.ui.search_form.uploads import PHOTOS, PREVIEWS, VECTORS
from app.ui.views.search import PAGES
from support.colours import photo
from support.search_page import (
    Visit,
    alerts,
    asked,
    drawn,
    notes,
    press,
    searches,
    skus,
    upload,
    widget,
)
from support.sources import WatchedEncoder


def test_the_camera_is_drawn_only_while_its_box_is_open(goods: App, visit: Visit) -> None:
    """A browser asks for permission, and turns the camera on, as soon as the widget is drawn."""
    page = visit()
    assert len(page.get("camera_input")) == 0
    page.session_state["camera_box"] = True
    assert len(page.run().get("camera_input")) == 1


def test_an_uploaded_photo_finds_its_product_first(goods: App, visit: Visit) -> None:
    assert skus(upload(visit(), 7))[0] == "P0007"


def test_several_photos_count_together(goods: App, visit: Visit, encoder: WatchedEncoder) -> None:
    assert set(skus(upload(visit(), 7, 9))[:2]) == {"P0007", "P0009"}
    assert encoder.encoded == 2


def test_of_more_than_ten_photos_ten_are_searched_with_a_warning(
    goods: App, visit: Visit, encoder: WatchedEncoder
) -> None:
    page = upload(visit(), *range(12))
    assert (encoder.encoded, "takes 10 pictures" in alerts(page)[0]) == (10, True)


def test_a_bad_file_is_named_and_the_others_are_searched(goods: App, visit: Visit) -> None:
    page = visit()
    files = [("7.png", photo(7), "image/png"), ("no.png", b"nothing", "image/png")]
    page.file_uploader[0].set_value(files).run()
    assert alerts(page)[0].startswith("no.png: ")
    assert skus(page)[0] == "P0007"


def longest(value: object) -> int:
    """The length of the longest bytes in a value, through containers and attributes."""
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, dict):
        inner = [*value.values()]
    elif isinstance(value, (list, tuple)):
        inner = [*value]
    elif is_dataclass(value):
        inner = [getattr(value, field.name) for field in fields(value)]
    else:
        inner = [*getattr(value, "__dict__", {}).values()]
    return max(map(longest, inner), default=0)


def test_a_session_keeps_the_preview_of_a_photo_and_not_its_file(goods: App, visit: Visit) -> None:
    file = io.BytesIO()
    Image.effect_noise((400, 400), 90).convert("RGB").save(file, "PNG")
    assert len(file.getvalue()) > 100_000
    page = visit()
    page.file_uploader[0].set_value([("noise.png", file.getvalue(), "image/png")]).run()
    assert len(skus(page)) == 12
    assert page.file_uploader[0].value == []
    state = page.session_state
    kept = {key: longest(state[key]) for key in (PHOTOS, PREVIEWS, PAGES, VECTORS)}
    assert 0 < max(kept.values()) < 50_000, kept
    assert shared.services().uploads.nbytes == len(file.getvalue())


def test_a_photo_that_was_given_up_for_others_has_to_be_uploaded_again(
    goods: App, visit: Visit
) -> None:
    page = upload(visit(), 7)
    app = shared.services()
    app.uploads._max_bytes = 1
    app.uploads.put(b"another visitor's photo")
    widget(page, "slider", "across").set_value((0, 50)).run()
    assert "no longer kept here" in alerts(page)[0]
    widget(page, "slider", "across").set_value((0, 100)).run()
    assert skus(page)[0] == "P0007", "the vector of the whole is kept"
    assert skus(upload(page, 8))[0] == "P0008"


def test_a_removed_photo_is_not_searched(goods: App, visit: Visit) -> None:
    page = press(upload(visit(), 7), "Remove photo")
    assert dict(page.query_params) == {} and skus(page)[0] == "P0036"


def test_a_region_of_the_photo_is_searched(goods: App, visit: Visit) -> None:
    page = upload(visit(), 7)
    before = drawn(page, "class=card")
    widget(page, "slider", "across").set_value((0, 50)).run()
    assert drawn(page, "class=card") != before
    assert asked(page) == {"box": ["0,0,50,100"]}


def test_another_photo_is_searched_as_a_whole(goods: App, visit: Visit) -> None:
    page = upload(visit(), 7)
    widget(page, "slider", "across").set_value((0, 50)).run()
    upload(page, 8)
    assert widget(page, "slider", "across").value == (0, 100)
    assert skus(page)[0] == "P0008"


def test_words_typed_for_a_photo_do_not_rank_the_next_one(goods: App, visit: Visit) -> None:
    page = visit(text="title", brand="Kestrel")
    upload(page, 7)
    assert asked(page)["text"] == ["title"]  # a photo for the words
    upload(page, 9)
    assert asked(page) == {"brand": ["Kestrel"]}
    assert (skus(page)[0], widget(page, "text_input", "words").value) == ("P0009", "")
    recent = [each for each in page.button if (each.key or "").startswith("recent-")]
    next(each for each in recent if "Photo" in each.label and "title" in each.label).click().run()
    assert asked(page)["text"] == ["title"]  # the photo before, with its words


@pytest.fixture
def calibrated(goods: App, encoder: WatchedEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model tells photos that have a close match: those of products have a similarity of 1."""
    curve = confidence.Curve(0.9, 0.05, 0.98)
    curves = confidence.Curves(whole=curve, objects=curve, filled_from=0.0)
    monkeypatch.setattr(confidence, "SHIPPED", {encoder.fingerprint: curves})


@pytest.mark.usefixtures("calibrated")
def test_words_do_not_hide_that_a_photo_has_no_close_match(goods: App, visit: Visit) -> None:
    page = upload(visit(), 5000)
    assert "No close match: these" in notes(page) and "add words" in notes(page)
    before = searches()
    page = widget(page, "text_input", "words").set_value("title").run()
    assert "No close match for the photo itself" in notes(page) and "add words" not in notes(page)
    assert searches() == before + 1  # what the search without words said is known
    assert "No close match for the photo itself" in notes(upload(visit(text="title"), 5000))
    assert "No close match" not in notes(upload(visit(text="title"), 7))


def test_ways_on_are_named_while_it_is_unlikely_that_the_product_was_found(
    goods: App, visit: Visit, encoder: WatchedEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    curve = confidence.Curve(0.9, 0.05, close=-1.0)  # nothing is said to be far
    curves = confidence.Curves(whole=curve, objects=curve, filled_from=0.0)
    monkeypatch.setattr(confidence, "SHIPPED", {encoder.fingerprint: curves})
    ways = "Most similar first. Not among these? Draw a box"
    page = upload(visit(), 5000)  # a photo of no product
    assert ways in notes(page)
    widget(page, "slider", "across").set_value((0, 50)).run()
    assert "Most similar first" in notes(page) and ways not in notes(page)
    page = upload(visit(), 7)
    assert "Most similar first" in notes(page) and ways not in notes(page)


@pytest.mark.usefixtures("calibrated")
def test_no_close_match_among_what_passes_filters_names_them(goods: App, visit: Visit) -> None:
    page = upload(visit(brand="Alder"), 7)  # the photo of a product of another brand
    assert "No close match among what passes your filters" in notes(page)
    page = next(each for each in page.button if each.key == "clear-note").click().run()
    assert (asked(page), skus(page)[0]) == ({}, "P0007")
    assert "No close match" not in notes(page)


def test_results_for_a_photo_and_words_are_not_in_the_order_of_similarity(
    goods: App, visit: Visit
) -> None:
    page = upload(visit(), 7)
    assert "Most similar first" in notes(page)
    widget(page, "text_input", "words").set_value("title").run()
    assert "Best match first" in notes(page) and "Most similar first" not in notes(page)


def test_a_region_too_small_is_an_error_message(goods: App, visit: Visit) -> None:
    page = upload(visit(), 7)
    widget(page, "slider", "across").set_value((50, 51)).run()
    assert "is not part of a picture" in alerts(page)[0]


def test_more_like_this_searches_with_that_product_and_keeps_the_filters(
    goods: App, visit: Visit
) -> None:
    page = upload(visit(brand="Kestrel"), 7)
    press(page, "More like this")
    assert asked(page) == {"sku": ["P0007"], "brand": ["Kestrel"]}
    assert "P0007" not in skus(page) and len(skus(page)) == 12


def test_another_reference_takes_the_place_of_the_one_before(goods: App, visit: Visit) -> None:
    page = visit(sku="P0001", text="title", weight="0.8", brand="Kestrel")
    upload(page, 7)
    assert asked(page) == {"weight": ["0.8"], "brand": ["Kestrel"]}
    press(page, "More like this")
    assert not page.exception
    assert asked(page) == {"sku": ["P0007"], "weight": ["0.8"], "brand": ["Kestrel"]}
