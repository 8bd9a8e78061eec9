"""Ways to ask on the search page, in a real browser: paste, drop, box, keys, touch, phone."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from support.browsing import Shop, first_card, overflows, search_photo, settled, upload

# The tests of this page share one shop, one server and one browser.
pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("search_page")]

Open = Callable[..., Page]

GIVE = """([kind, data]) => {
  const bytes = Uint8Array.from(atob(data), each => each.charCodeAt(0));
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], `${kind}.jpg`, {type: "image/jpeg"}));
  const event = kind === "pasted"
    ? new ClipboardEvent("paste", {clipboardData: carried, bubbles: true})
    : new DragEvent("drop", {dataTransfer: carried, bubbles: true, cancelable: true});
  document.querySelector("h1").dispatchEvent(event);
}"""
"""Pastes a file, or drops it on the heading, as a browser does."""


def paste(page: Page, kind: str, photo: Path) -> None:
    page.evaluate(GIVE, [kind, b64encode(photo.read_bytes()).decode()])


def give(page: Page, kind: str, photo: Path) -> None:
    page.wait_for_function("!!window.lookalikeInput")
    paste(page, kind, photo)
    expect(page.get_by_alt_text(f"Your photo {kind}.jpg")).to_be_visible()


def test_a_photo_is_pasted_or_dropped_anywhere_and_a_slash_goes_to_the_field(
    page: Page, address: str, shop: Shop
) -> None:
    held: list[Route] = []
    page.route("**/FileUploader.*.js", lambda route: held.append(route))
    page.goto(address)
    page.wait_for_function("!!window.lookalikeInput")
    paste(page, "pasted", shop.photo)
    expect(page.locator("input[type=file]")).to_have_count(0)  # given before there is a widget
    held.pop().continue_()
    expect(page.get_by_alt_text("Your photo pasted.jpg")).to_be_visible()
    expect(first_card(page)).to_contain_text(shop.expected_sku)
    give(page, "dropped", shop.photo)
    expect(first_card(page)).to_contain_text(shop.expected_sku)
    page.keyboard.press("/")
    field = page.get_by_role("textbox", name="Search")
    expect(field).to_be_focused()
    page.keyboard.type("a/b")
    expect(field).to_have_value("a/b")
    page.keyboard.press("Enter")
    settled(page)
    page.get_by_role("button", name="Recent").click()
    page.get_by_role("button", name="Photo", exact=True).first.click()
    expect(field).to_have_value("")
    expect(first_card(page)).to_contain_text(shop.expected_sku)


def test_a_box_is_drawn_moved_and_taken_away_by_mouse_and_keys_and_objects_are_boxes_to_click(
    page: Page, shop: Shop, artefacts: Path
) -> None:
    search_photo(page, shop)
    area = page.locator(".frame").bounding_box()
    assert area is not None
    at = [(area["x"] + area["width"] * x, area["y"] + area["height"] * y)
          for x, y in ((0.2, 0.1), (0.5, 0.5), (0.8, 0.9))]  # fmt: skip
    page.mouse.move(*at[0])
    page.mouse.down()
    for place in at[1:]:
        page.mouse.move(*place)
    page.mouse.up()
    expect(page).to_have_url(re.compile(r"box=20%2C10%2C80%2C90"))
    settled(page)
    page.screenshot(path=artefacts / "box.png")
    box = page.locator(".box")
    box.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowUp")
    expect(page).to_have_url(re.compile(r"box=22%2C10%2C82%2C88"))
    settled(page)
    expect(box).to_be_focused()
    expect(box).to_have_accessible_name(re.compile("from 22 to 82 percent across"))
    page.keyboard.press("Escape")
    expect(page).not_to_have_url(re.compile("box="))
    settled(page)
    page.go_back()
    expect(box).to_have_attribute("style", re.compile("left: 22%"))
    settled(page)
    upload(page, "two.jpg", _two_products(shop))
    expect(page.get_by_alt_text("Your photo two.jpg")).to_be_visible()
    expect(page).not_to_have_url(re.compile("box="))
    objects = page.locator(".object")
    expect(objects.first).to_be_visible()
    expect(page.get_by_role("button", name="Object 1:")).to_be_visible()
    objects.first.click()
    expect(page).to_have_url(re.compile("box="))
    settled(page)
    first_card(page)


def test_objects_stay_in_their_places_when_one_is_chosen_and_lead_to_what_they_promise(
    page: Page, shop: Shop, artefacts: Path
) -> None:
    search_photo(page, shop)
    upload(page, "two.jpg", _two_products(shop))
    names = ("Object 2:", "Object 1:", "Whole photo")
    buttons = [page.get_by_role("button", name=name) for name in names]
    for button in buttons:
        expect(button).to_have_count(1)
        expect(button).to_be_visible()
    settled(page)
    places = [button.bounding_box() for button in buttons]
    for chosen in buttons:
        chosen.click()
        expect(chosen).to_have_attribute("kind", "primary")
        settled(page)
        assert [button.bounding_box() for button in buttons] == places
        marked = page.locator(".st-key-objects button[kind=primary]:visible")
        expect(marked).to_have_count(1)
        if chosen is not buttons[-1]:
            name = re.sub(r"^.*?: | \(.*$", "", chosen.inner_text().replace("\n", " "))
            expect(first_card(page)).to_contain_text(name)
            page.screenshot(path=artefacts / "object.png")
    expect(page).not_to_have_url(re.compile("box="))


def _two_products(shop: Shop) -> bytes:
    """Two pictures of the catalogue on one large background."""
    pictures = sorted((shop.photo.parent.parent / "images").glob("*.jpg"))[:2]
    whole = Image.new("RGB", (1200, 700), (120, 96, 80))
    for place, picture in enumerate(pictures):
        whole.paste(Image.open(picture).convert("RGB").resize((360, 360)), (100 + 640 * place, 170))
    file = BytesIO()
    whole.save(file, "JPEG")
    return file.getvalue()


def test_on_a_phone_results_are_seen_at_once_and_a_finger_draws_a_box(
    open_page: Open, address: str, shop: Shop, artefacts: Path
) -> None:
    page = open_page(address, width=390)
    page.set_viewport_size({"width": 390, "height": 844})
    touch = page.context.new_cdp_session(page)
    touch.send("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 1})
    expect(page.locator(".lookalike-drop")).to_have_count(1)  # what listens is there
    with page.expect_file_chooser() as camera:  # that of the phone, at the first touch
        page.get_by_role("button", name="Camera").click()
    assert camera.value.element.get_attribute("capture") == "environment"
    camera.value.set_files(shop.photo)
    expect(page.locator(".st-key-reference")).to_be_visible()
    card = first_card(page)
    expect(card).to_contain_text(shop.expected_sku)
    page.screenshot(path=artefacts / "phone.png")
    seen = card.bounding_box()
    assert seen is not None and seen["y"] + seen["height"] / 2 < 844, seen
    small = page.locator(".stApp button").evaluate_all(
        "all => all.filter(b => b.offsetHeight && b.offsetHeight < 44).map(b => b.innerText)"
    )
    assert (small, overflows(page)) == ([], False), small
    filters = page.locator(".st-key-narrow")
    fade = "row => getComputedStyle(row).getPropertyValue('--after')"
    assert filters.evaluate("row => row.scrollWidth > row.clientWidth")
    assert filters.evaluate(fade) == "48px"  # it goes on at the right
    filters.evaluate("row => row.scrollTo(row.scrollWidth, 0)")
    page.wait_for_function(f"({fade})(document.querySelector('.st-key-narrow')) === '0px'")
    assert filters.evaluate("row => getComputedStyle(row).maskImage") != "none"
    page.get_by_role("button", name="Draw a box").click()
    area = page.locator(".frame").bounding_box()
    assert area is not None and area["width"] > 200
    for kind, share in (("touchStart", 0.1), ("touchMove", 0.5), ("touchMove", 0.8)):
        point = {"x": area["x"] + share * area["width"], "y": area["y"] + share * area["height"]}
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect(page).to_have_url(re.compile(r"box=10%2C10%2C80%2C80"))
    settled(page)
    page.get_by_role("button", name="Show results").click()
    assert page.locator(".handle").evaluate_all("all => all.every(each => !each.offsetHeight)")
    seen = first_card(page).bounding_box()
    assert seen is not None and seen["y"] + seen["height"] / 2 < 844, seen
    page.close()  # it would emulate a finger in later tests


def test_what_is_asked_scrolls_by_itself_where_the_window_is_lower(page: Page, shop: Shop) -> None:
    search_photo(page, shop)
    page.set_viewport_size({"width": 1280, "height": 480})
    page.get_by_role("button", name="Share", exact=True).click()
    last = page.get_by_role("button", name="Stop sharing")
    expect(last).to_be_visible()
    settled(page)
    page.evaluate("document.querySelector('.stMain').scrollTo(0, 200)")
    column = page.get_by_test_id("stColumn").filter(has=page.locator(".st-key-ask"))
    column.evaluate("all => all.scrollTo(0, all.scrollHeight)")
    place = last.bounding_box()
    assert place is not None and place["y"] + place["height"] <= 480, place


def test_escape_closes_the_pinned_products_after_a_download(page: Page) -> None:
    first_card(page)
    page.locator(".st-key-pin-0 button").click()
    page.get_by_role("button", name="Pinned (1)").click()
    dialog = page.get_by_role("dialog")
    with page.expect_download():
        dialog.get_by_role("button", name="CSV").click()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def test_a_search_is_shared_and_its_link_copied_with_keys_alone(page: Page, shop: Shop) -> None:
    search_photo(page, shop)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Share", exact=True).press("Enter")
    link = page.locator(".st-key-ask code")
    expect(link).to_contain_text("shared=")
    expect(page.locator(".st-key-shared_link")).to_be_focused()
    settled(page)
    expect(page.get_by_test_id("stCode")).to_be_visible()
    page.keyboard.press("Tab")  # the link itself
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Copy to clipboard")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_function(
        "async (link) => (await navigator.clipboard.readText()) === link", arg=link.inner_text()
    )
    page.context.clear_permissions()


def test_a_browser_ends_its_own_link_after_a_reload_and_another_cannot(
    open_page: Callable[..., Page], address: str, shop: Shop, browser: Browser
) -> None:
    page = open_page(address)
    search_photo(page, shop)
    page.get_by_role("button", name="Share", exact=True).click()
    expect(page.locator(".st-key-shared_link")).to_be_visible()
    settled(page)
    link = page.url
    page.wait_for_function("document.cookie.includes('lookalike-shares=')")
    newest = page.evaluate("document.cookie.match(/shares=([^;.]*)/)[1]")
    id_, signature = newest.split(":")
    assert id_ in link
    with browser.new_context() as other:
        forged = f"{id_}:{signature[::-1]}"
        other.add_cookies([{"name": "lookalike-shares", "value": forged, "url": address}])
        visitor = other.new_page()
        visitor.goto(link)
        expect(visitor.get_by_text("A shared photo, which can be searched")).to_be_visible()
        assert visitor.get_by_role("button", name="Stop sharing").count() == 0
    page.reload()
    page.get_by_role("button", name="Stop sharing").click()
    expect(page.get_by_text("The link is ended")).to_be_visible()
    page.wait_for_function("id => !document.cookie.includes(id)", arg=id_)
    page.goto(link)
    expect(page.get_by_text("has expired, or is incomplete")).to_be_visible()


def test_on_a_phone_the_question_follows_the_pictures_of_a_pair(
    open_page: Callable[..., Page], address: str
) -> None:
    page = open_page(f"{address}/duplicates", width=390)
    question = page.get_by_role("heading", name="Are these the same product?")
    expect(question).to_be_visible()
    settled(page)
    pictures = page.locator(".st-key-pair img").last.bounding_box()
    asked = question.bounding_box()
    assert pictures is not None and asked is not None
    assert asked["y"] - (pictures["y"] + pictures["height"]) < 100
