"""Details, recent searches, pins and shared links of the search page."""

from __future__ import annotations

import csv
import io

import psycopg
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from app.bootstrap import App
from app.ui import shared
from app.ui.components import pins
from support.colours import photo
from support.search_page import (
    Visit,
    alerts,
    asked,
    drawn,
    press,
    skus,
    upload,
    widget,
)


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
