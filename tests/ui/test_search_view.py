"""The search page without a browser: queries, filters, paging and messages."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from html import unescape
from typing import Any

import psycopg
import pytest
import streamlit as st
from PIL import Image
from streamlit.testing.v1 import AppTest

from app.bootstrap import App
from app.config import Settings
from app.encoders.base import EncoderChoice
from app.images.sandbox import PictureSandbox
from app.search import confidence
from app.ui import shared
from app.ui.components import pins
from app.ui.search_form.uploads import PHOTOS, PREVIEWS, VECTORS
from app.ui.views.search import PAGES
from conftest import Fill
from support.colours import choose_colours, photo
from support.concurrency import slots_occupied
from support.shop import add, numbered
from support.sources import WatchedEncoder

Visit = Callable[..., AppTest]


def script() -> None:
    from app.ui.views import search as search_view

    search_view.show()


@pytest.fixture
def encoder() -> WatchedEncoder:
    return WatchedEncoder()


@pytest.fixture
def visit(
    settings: Settings,
    encoder: WatchedEncoder,
    sandbox: PictureSandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Visit]:
    """Opens the page with URL parameters, on this test's database, with an encoder that counts."""
    own = settings.model_copy(update={"page_metrics_port": 0})
    made = App(own, choose=lambda model, **_: EncoderChoice(encoder, "watched"))
    vars(made)["sandbox"] = sandbox
    monkeypatch.setattr(shared, "App", lambda: made)
    st.cache_resource.clear()
    st.cache_data.clear()

    def visit(**address: str | list[str]) -> AppTest:
        page = AppTest.from_function(script, default_timeout=300)
        page.query_params.update(address)
        return page.run()

    yield visit
    del vars(made)["sandbox"]  # later tests use it
    made.close()
    st.cache_resource.clear()


def forty_products(app: App) -> None:
    """Products of two brands and five years, with an index."""
    add(app, {f"P{n:04}": [n] for n in range(40) if n % 4}, brand="Kestrel")
    add(app, {f"P{n:04}": [n] for n in range(0, 40, 4)}, brand="Alder")
    with app.engine.begin() as connection:
        connection.exec_driver_sql(
            """UPDATE product SET year = 2015 + mod(n, 5), price = 10 + n
            FROM (SELECT id, substr(sku, 2)::integer AS n FROM product) AS numbered
            WHERE numbered.id = product.id"""
        )
    app.indexer.rebuild()


@pytest.fixture
def database_url(filled_database: Callable[[Fill], str]) -> str:
    return filled_database(forty_products)


@pytest.fixture
def goods(app: App) -> App:
    """The services over the forty products."""
    return app


def upload(page: AppTest, *seeds: int) -> AppTest:
    files = [(f"{seed}.png", photo(seed), "image/png") for seed in seeds]
    return page.file_uploader[0].set_value(files).run()


def drawn(page: AppTest, part: str) -> list[str]:
    """The HTML elements of the page with this part."""
    return [each.proto.body for each in page.get("html") if part in each.proto.body]


def skus(page: AppTest) -> list[str]:
    cards = drawn(page, "<div class=card>")
    return [unescape(re.findall(r"<span class=faint>(.*?)</span>", card)[-1]) for card in cards]


def alerts(page: AppTest) -> list[str]:
    """The text of all alerts of the page, without Markdown escapes."""
    boxes = [*page.error, *page.warning, *page.info]
    return [re.sub(r"\\(.)", r"\1", box.value) for box in boxes]


def widget(page: AppTest, kind: str, name: str) -> Any:
    """The widget of a field: its key gets a number when the field was changed otherwise."""
    pattern = re.compile(rf"search_{name}(_\d+)?")
    [found] = [each for each in getattr(page, kind) if pattern.fullmatch(each.key or "")]
    return found


def options(widget: Any) -> list[str]:
    """The labels of the options, without Markdown escapes."""
    return [re.sub(r"\\(.)", r"\1", label) for label in widget.options]


def asked(page: AppTest) -> dict[str, Any]:
    """The parameters of the address but the photo, whose id is random."""
    parameters = {
        name: [*([value] if isinstance(value, str) else value)]
        for name, value in page.query_params.items()
    }
    return {name: values for name, values in parameters.items() if name != "photo"}


def press(page: AppTest, label: str) -> AppTest:
    return next(each for each in page.button if each.label.startswith(label)).click().run()


def searches() -> float:
    """How many searches the page has run."""
    found = shared.services().metrics.registry.collect()
    return sum(
        sample.value for metric in found for sample in metric.samples
        if sample.name == "lookalike_searches_total"
    )  # fmt: skip


def test_before_the_first_search_the_page_shows_products(goods: App, visit: Visit) -> None:
    page = visit()
    assert skus(page) == [f"P{n:04}" for n in range(36, -1, -4)] + ["P0039", "P0038"]
    assert [header.value for header in page.header] == ["40 products"]


def test_the_camera_is_drawn_only_while_its_box_is_open(goods: App, visit: Visit) -> None:
    """A browser asks for permission, and turns the camera on, as soon as the widget is drawn."""
    page = visit()
    assert len(page.get("camera_input")) == 0
    page.session_state["camera_box"] = True
    assert len(page.run().get("camera_input")) == 1


def test_without_tables_or_products_the_page_shows_advice(
    settings: Settings, empty_url: str, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = settings.model_copy(update={"database_url": empty_url, "page_metrics_port": 0})
    with App(own, choose=choose_colours) as empty:
        monkeypatch.setattr(shared, "App", lambda: empty)
        assert "Run `lookalike init` first" in alerts(upload(visit(), 7))[0]
        empty.initialise()
        page = visit()
        advice = "The catalogue is empty. Load products with `lookalike ingest`, then search."
        assert alerts(page) == [advice]
        assert "No products have a picture" in alerts(upload(page, 7))[0]


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


def test_filters_paging_and_details_encode_nothing_again(
    goods: App, visit: Visit, encoder: WatchedEncoder
) -> None:
    page = upload(visit(), 7)
    widget(page, "pills", "brand").set_value(["Kestrel"]).run()
    press(page, "Next page")
    press(page, "Details")
    assert encoder.encoded == 1


def test_an_unchanged_query_is_not_searched_again(goods: App, visit: Visit) -> None:
    page = upload(visit(), 7)
    before = searches()
    press(page.run(), "Details")
    assert searches() == before == 1


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


def notes(page: AppTest) -> str:
    """What the captions of the page say, without Markdown escapes."""
    return " ".join(re.sub(r"\\(.)", r"\1", each.value) for each in page.caption)


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


def test_why_there_are_fewer_results_stands_beside_their_number(goods: App, visit: Visit) -> None:
    page = visit(sku="P0001", brand="Alder", year="2015")
    said = [re.sub(r"\\(.)", r"\1", each.value) for each in page.caption]
    assert "Most similar first. 2 products match these filters." in said
    assert "Most similar first" in [each.value for each in visit(sku="P0001").caption]


def test_a_region_too_small_is_an_error_message(goods: App, visit: Visit) -> None:
    page = upload(visit(), 7)
    widget(page, "slider", "across").set_value((50, 51)).run()
    assert "is not part of a picture" in alerts(page)[0]


def test_words_alone_find_products_under_a_singular_heading(goods: App, visit: Visit) -> None:
    page = visit()
    widget(page, "text_input", "words").set_value("P0012").run()
    assert skus(page) == ["P0012"]
    assert [header.value for header in page.header] == ["1 result"]
    assert asked(page) == {"text": ["P0012"]}


def test_the_page_shows_what_read_the_words(goods: App, visit: Visit) -> None:
    said = " ".join(caption.value for caption in visit(text="title").caption)
    assert "The words were read by the catalogue" in said.replace("\\", "")


def test_words_for_a_model_without_text_are_an_error_message(goods: App, visit: Visit) -> None:
    said = alerts(visit(text="lamp", reader="model"))
    assert len(said) == 1 and "reads pictures only" in said[0]


def test_words_alone_with_a_minimum_similarity_are_an_error_message(
    goods: App, visit: Visit
) -> None:
    assert "leave out" in alerts(visit(text="title", min="0.5"))[0]


def test_more_like_this_searches_with_that_product_and_keeps_the_filters(
    goods: App, visit: Visit
) -> None:
    page = upload(visit(brand="Kestrel"), 7)
    press(page, "More like this")
    assert asked(page) == {"sku": ["P0007"], "brand": ["Kestrel"]}
    assert "P0007" not in skus(page) and len(skus(page)) == 12


def test_a_busy_service_is_a_warning_with_a_button_to_try_again(
    goods: App, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = visit()
    admission = shared.services().admission
    monkeypatch.setattr(admission, "_wait_s", 0.0)
    with slots_occupied(admission):
        page = upload(page, 7)
    [said] = [each.value for each in page.warning]
    assert "Too many searches" in said and not page.exception and not page.error
    [again] = [button for button in page.button if button.label == "Try again"]
    assert skus(again.click().run())[0] == "P0007"


def test_a_url_with_a_sku_and_filters_is_a_search(goods: App, visit: Visit) -> None:
    page = visit(sku="P0001", brand=["Alder"], year="2015..2016", k="24")
    expected = {f"P{n:04}" for n in range(40) if n % 4 == 0 and n % 5 < 2}
    assert set(skus(page)) == expected


def test_an_unknown_sku_is_one_error_message(goods: App, visit: Visit) -> None:
    [said] = alerts(visit(sku="P000X"))
    assert said.startswith("No product of the catalogue has the sku 'P000X'. Did you mean P0000")


def test_an_unknown_brand_finds_nothing_with_an_explanation(goods: App, visit: Visit) -> None:
    page = visit(sku="P0001", brand="Nobody")
    assert widget(page, "pills", "brand").value == ["Nobody"]
    assert alerts(page)[0] == "No products match these filters."
    assert len(skus(press(page, "Clear filters"))) == 12


@pytest.mark.parametrize(
    "address", [{"price": "9..1"}, {"k": "1000000"}, {"sku": "\0"}, {"brand": "\0"}]
)
def test_an_invalid_url_is_one_message_shown_once_and_the_page_works(
    goods: App, visit: Visit, address: dict[str, str]
) -> None:
    page = visit(**address)
    assert len(alerts(page)) == 1 and not page.exception
    assert skus(upload(page, 7))[0] == "P0007"
    assert alerts(page) == []


def test_a_reversed_range_is_an_error_message(goods: App, visit: Visit) -> None:
    page = upload(visit(), 7)
    widget(page, "number_input", "price_from").set_value(20.0).run()
    widget(page, "number_input", "price_to").set_value(10.0).run()
    assert "ends before it begins" in alerts(page)[0]


def test_an_image_url_in_a_private_network_is_refused_in_one_sentence(
    goods: App, visit: Visit
) -> None:
    page = visit(image="http://127.0.0.1/secret.png")
    said = "Images on private networks can't be loaded. Download it and upload the file."
    assert (alerts(page), skus(page)) == ([said], [])
    assert len(skus(press(page, "Remove image URL"))) == 12


def test_the_details_show_the_photo_beside_the_product_and_link_to_its_page(
    goods: App, visit: Visit, sql: psycopg.Connection
) -> None:
    sql.execute("""UPDATE product SET attributes = '{"link": "https://shop.test/7"}'""")
    page = press(upload(visit(), 7), "Details")
    [details] = drawn(page, "class=details")
    assert "Your photo, for comparison" in details and "picture 1" in details
    page = visit(sku="P0007")
    first = skus(page)[0]
    [details] = drawn(press(page, "Details"), "class=details")
    assert "title P0007, for comparison" in details and f"title {first}, picture 1" in details
    [details] = drawn(press(page, "View product"), "class=details")
    assert "for comparison" not in details
    assert [link.proto.url for link in page.get("link_button")] == ["https://shop.test/7"]
    sql.execute("""UPDATE product SET attributes = '{"link": "javascript:alert(1)"}'""")
    assert press(page, "Details").get("link_button") == []


def test_the_first_search_is_among_the_recent_ones_before_it_is_answered(visit: Visit) -> None:
    """Later, their box would move the photo that is below it."""

    def recent(page: AppTest) -> list[str]:
        buttons = [each for each in page.button if (each.key or "").startswith("recent-")]
        return [each.label.replace("\\", "") for each in buttons]

    page = visit()
    assert recent(page) == []
    assert recent(upload(page, 7)) == ["Photo"]
    widget(page, "text_input", "words").set_value("P0001").run()
    assert recent(page.run()) == ["Photo, “P0001”", "Photo"]
    assert len(drawn(page, '<img alt="" src=')) == 2  # of the photo, beside each
    page = visit(text="lamp", year="2016..", page="2")
    assert (recent(page), drawn(page, '<img alt="" src=')) == (["“lamp”, 1 filter"], [])


def test_pinned_products_stay_when_the_search_changes_and_are_exported(
    goods: App, visit: Visit, sql: psycopg.Connection
) -> None:
    sql.execute("UPDATE product SET title = '=1+1' WHERE sku = 'P0001'")
    page = press(visit(sku="P0002", brand="Kestrel"), "*Pin ")
    first = skus(page)[0]
    widget(page, "text_input", "words").set_value("P0001").run()
    press(page, "*Pin ")
    pinned = list(page.session_state[pins.PINS].values())
    assert [pin.product.sku for pin in pinned] == [first, "P0001"]
    rows = list(csv.DictReader(io.StringIO(pins.csv_of(pinned).decode())))
    assert [row["sku"] for row in rows] == [first, "P0001"] and rows[1]["title"] == "'=1+1"
    sheet = Image.open(io.BytesIO(pins.sheet_of(pinned, "PNG")))
    shown = {colour for _, colour in sheet.getcolors(1 << 20) or []}
    assert (sheet.width, len(shown) > 10) == (1400, True)
    assert pins.sheet_of(pinned, "PDF").startswith(b"%PDF")
    dialog = press(page, "Pinned (2)")
    assert "P0001" in "".join(drawn(dialog, "class=listing"))
    [compared] = drawn(dialog, "class=compare")
    assert compared.count("<img") == 2 and "=1+1" in compared and first in compared
    unpin = next(each for each in page.button if each.label.startswith("*Unpin "))
    assert (unpin.proto.type, unpin.proto.icon) == ("primary", ":material/keep:")
    press(page, "*Unpin ")
    assert list(page.session_state[pins.PINS]) == [first]


def test_a_search_by_photo_is_shared_as_a_link_until_it_expires(
    goods: App, visit: Visit, sql: psycopg.Connection
) -> None:
    page = upload(visit(brand="Kestrel"), 7)
    found, box = skus(page), (10, 10, 90, 90)
    page = press(page, "Share")
    shared_id = str(page.query_params["shared"])
    assert ("photo" in page.query_params, skus(page)) == (False, found)
    assert "Everybody with this link" in page.caption[0].value
    assert page.code[0].value.endswith(f"/?shared={shared_id}&brand=Kestrel")
    [(preview,)] = sql.execute("SELECT preview FROM query_photo").fetchall()
    assert preview != photo(7)
    other = visit(shared=shared_id, brand="Kestrel")
    assert (skus(other), other.code.len, alerts(other)) == (found, 0, [])
    assert "Most similar first" in [each.value for each in other.caption]
    assert widget(other, "number_input", "min_similarity").value is None
    part = visit(shared=shared_id, box=",".join(map(str, box)))
    assert skus(part)[0] == "P0007" and not part.exception
    [details] = drawn(press(other, "Details"), "class=details")
    assert "Your photo, for comparison" in details
    sql.execute("UPDATE query_photo SET fingerprint = 'another'")
    assert "another model" in alerts(visit(shared=shared_id))[0]
    sql.execute("UPDATE query_photo SET expires_at = now()")
    expired = visit(shared=shared_id)
    assert "has expired" in alerts(expired)[0] and "Ask for a new link" in alerts(expired)[0]
    assert alerts(press(expired, "Remove photo")) == []


def test_a_link_is_ended_by_who_made_it_and_the_search_goes_on(
    goods: App, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = press(upload(visit(brand="Kestrel"), 7), "Share")
    shared_id, found = str(page.query_params["shared"]), skus(page)
    other = visit(shared=shared_id)
    assert not any(each.label == "Stop sharing" for each in other.button)
    app = shared.services()
    with monkeypatch.context() as patch:
        public = app.settings.model_copy(update={"page_read_only": True})
        patch.setattr(app, "settings", public)
        assert not any(each.label == "Stop sharing" for each in page.run().button)
    page = press(page.run(), "Stop sharing")
    assert ("shared" in page.query_params, skus(page), page.code.len) == (False, found, 0)
    assert asked(page) == {"brand": ["Kestrel"]} and "photo" in page.query_params
    assert "The link is ended" in page.caption[0].value
    assert "has expired" in alerts(visit(shared=shared_id))[0]


def test_a_search_that_cannot_be_shared_says_why_and_a_public_page_shares_none(
    goods: App, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = upload(visit(), 7)
    app = shared.services()
    monkeypatch.setattr(app.photos, "_settings", app.settings.model_copy(update={"max_photos": 0}))
    page = press(page, "Share")
    assert "Too many searches are shared" in alerts(page)[0] and "photo" in page.query_params
    public = app.settings.model_copy(update={"page_read_only": True})
    monkeypatch.setattr(app, "settings", public)
    assert not any(each.label == "Share" for each in page.run().button)


def test_a_value_is_offered_with_its_count(goods: App, visit: Visit) -> None:
    page = upload(visit(), 7)
    assert options(widget(page, "pills", "brand")) == ["Kestrel (30)", "Alder (10)"]


def test_a_rare_value_that_is_not_listed_can_be_typed(
    goods: App, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.search.facets.MAX_VALUES", 1)
    page = upload(visit(brand="Alder"), 7)
    brands = widget(page, "multiselect", "brand")
    assert (brands.options, brands.value) == (["Kestrel (30)", "Alder"], ["Alder"])
    assert len(skus(page)) == 10
    assert any(caption.value.startswith("Not listed: 1 rarer") for caption in page.caption)


def test_a_choice_stays_when_the_counts_change(goods: App, visit: Visit) -> None:
    page = upload(visit(), 7)
    widget(page, "pills", "brand").set_value(["Alder"]).run()
    add(goods, numbered(1, first=90), brand="Alder")
    st.cache_data.clear()
    page.run()
    assert widget(page, "pills", "brand").value == ["Alder"]
    assert asked(page)["brand"] == ["Alder"]


def test_the_filters_are_cleared_at_once(goods: App, visit: Visit) -> None:
    page = visit(sku="P0001", brand="Alder", price="12..", min="0.1", fold="0")
    press(page, "Clear filters")
    assert asked(page) == {"sku": ["P0001"]}


def test_the_pages_show_every_product_once(goods: App, visit: Visit) -> None:
    page = upload(visit(), 7)
    seen = [skus(page)]
    for _ in range(3):
        seen.append(skus(press(page, "Next page")))
    assert [len(each) for each in seen] == [12, 12, 12, 4]
    assert sorted(sku for each in seen for sku in each) == [f"P{n:04}" for n in range(40)]
    assert next(each for each in page.button if each.label == "Next page").disabled


def test_going_back_shows_the_same_page_without_a_search(goods: App, visit: Visit) -> None:
    page = upload(visit(), 7)
    first = skus(page)
    press(page, "Next page")
    before = searches()
    assert (skus(press(page, "Previous page")), searches()) == (first, before)


def test_another_filter_begins_with_the_first_page(goods: App, visit: Visit) -> None:
    page = upload(visit(), 7)
    press(page, "Next page")
    widget(page, "pills", "brand").set_value(["Kestrel"]).run()
    assert skus(page)[0] == "P0007"


def test_search_again_finds_new_products(goods: App, visit: Visit) -> None:
    page = upload(visit(), 91)
    assert "P0091" not in skus(page)
    add(goods, numbered(1, first=91))
    assert skus(press(page, "Search again"))[0] == "P0091"


def test_the_page_explains_fewer_results_by_the_minimum_similarity(
    goods: App, visit: Visit
) -> None:
    page = upload(visit(min="0.99"), 7)
    assert skus(page) == ["P0007"]
    assert any("less similar than 0" in each.value for each in page.caption)


def test_a_fallback_is_shown_with_its_reason_and_not_as_an_error(
    goods: App, visit: Visit, sql: psycopg.Connection
) -> None:
    sql.execute("UPDATE index_build SET state = 'retired'")
    page = upload(visit(), 7)
    said = [re.sub(r"\\(.)", r"\1", caption.value) for caption in page.caption]
    assert any(each.startswith("The index did not answer: no index") for each in said)
    assert (skus(page)[0], page.error.len) == ("P0007", 0)


def test_the_page_shows_the_age_of_the_index(goods: App, visit: Visit) -> None:
    goods.indexer.rebuild()
    page = upload(visit(), 7)
    said = page.caption[-1].value.replace("\\", "")
    assert "Answered by faiss: build " in said and "The index was built just now." in said


def test_another_reference_takes_the_place_of_the_one_before(goods: App, visit: Visit) -> None:
    page = visit(sku="P0001", text="title", weight="0.8", brand="Kestrel")
    upload(page, 7)
    assert asked(page) == {"weight": ["0.8"], "brand": ["Kestrel"]}
    press(page, "More like this")
    assert not page.exception
    assert asked(page) == {"sku": ["P0007"], "weight": ["0.8"], "brand": ["Kestrel"]}


def test_a_page_after_the_last_shows_the_last_page_and_its_address(
    goods: App, visit: Visit
) -> None:
    page = visit(sku="P0001", brand="Kestrel", page="9")
    assert (len(skus(page)), asked(page)["page"]) == (5, ["3"])


def test_results_are_sorted_by_price_and_paged(goods: App, visit: Visit) -> None:
    page = upload(visit(brand="Alder"), 7)
    widget(page, "selectbox", "sort").set_value("dearest").run()
    assert skus(page) == [f"P{n:04}" for n in range(36, -1, -4)]
    page = visit(sku="P0001", sort="cheapest", page="2")
    assert (skus(page)[0], asked(page)["page"]) == ("P0013", ["2"])
    assert skus(press(page, "Next page"))[0] == "P0025"
    assert skus(press(page, "Previous page"))[0] == "P0013"
    page = visit(sku="P0001", sort="cheapest", page="9")
    assert (len(skus(page)), asked(page)["page"]) == (3, ["4"])


def test_products_are_listed_by_filters_alone(goods: App, visit: Visit) -> None:
    page = visit(brand="Kestrel", price="20..40", sort="cheapest")
    expected = [f"P{n:04}" for n in range(10, 31) if n % 4]
    assert skus(page) == expected[:12]
    assert [header.value for header in page.header] == ["16 products"]
    assert skus(press(page, "Next page")) == expected[12:]
    page = visit(brand="Alder", year="1800..1801")
    assert alerts(page) == ["No products match these filters."]
    assert len(skus(press(page, "Clear filters"))) == 12


def test_what_the_model_cannot_do_is_not_offered(goods: App, visit: Visit) -> None:
    page = visit(text="title")
    assert [each.label for each in page.segmented_control] == ["Results per page"]
    assert "Exclude" not in [each.label for each in page.text_input]


def test_too_long_words_in_a_url_are_an_error_message(goods: App, visit: Visit) -> None:
    page = visit(text="lamp " * 500)
    assert "use at most 1000" in alerts(page)[0] and not page.exception


def test_counts_are_those_of_the_other_filters_and_choices_stay(goods: App, visit: Visit) -> None:
    page = upload(visit(), 7)
    widget(page, "pills", "brand").set_value(["Alder"]).run()
    assert options(widget(page, "pills", "brand")) == ["Kestrel (30)", "Alder (10)"]
    widget(page, "number_input", "year_from").set_value(2016).run()
    brands = widget(page, "pills", "brand")
    assert options(brands) == ["Kestrel (24)", "Alder (8)"] and brands.value == ["Alder"]
    page.run()
    assert widget(page, "pills", "brand").value == ["Alder"]
    assert asked(page)["brand"] == ["Alder"]


def test_facets_without_values_are_not_offered(goods: App, visit: Visit) -> None:
    page = upload(visit(), 7)
    assert [each.label for each in page.pills] == ["Brand"]


def test_attributes_with_few_values_can_be_chosen(
    goods: App, visit: Visit, sql: psycopg.Connection
) -> None:
    sql.execute("UPDATE product SET attributes = jsonb_build_object('packed', id % 2)")
    page = upload(visit(), 7)
    attributes = widget(page, "pills", "packed")
    assert options(attributes) == ["0 (20)", "1 (20)"]
    attributes.set_value(["1"]).run()
    assert asked(page) == {"attribute": ["packed=1"]}
    assert len(skus(page)) == 12 and not page.exception
    again = visit(sku="P0001", attribute="packed=0")
    assert widget(again, "pills", "packed").value == ["0"]
    assert alerts(visit(attribute="year>=2000")) != []
