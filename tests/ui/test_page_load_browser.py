"""How the pages load: nothing jumps, files are compressed, and a file that fails breaks nothing."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from app.ui.page_files import document
from support.browsing import SOON_MS, Shop, Tabs, search_photo, settled

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("search_page")]

SIZES = {"desktop": (1400, 900), "phone": (390, 844)}

LATE = "**/static/js/{Html,Button,TextInput}.*.js"
"""The code of cards, pictures, fields and forms, without which Streamlit draws skeletons."""

RECORD = """
window.shifts = [];
const name = (node) => {
  const element = node?.nodeType === 1 ? node : node?.parentElement;
  const key = element?.closest("[class*=st-key-]")?.className.match(/st-key-\\S+/)?.[0];
  return [key, element?.dataset.testid, element?.innerText?.slice(0, 30)].join(" ");
};
new PerformanceObserver((list) => {
  for (const { value, sources } of list.getEntries()) {
    const moved = sources.map(({ node, previousRect, currentRect }) =>
      `${name(node)}: ${previousRect.y} to ${currentRect.y}`);
    shifts.push({ value, moved });
  }
}).observe({ type: "layout-shift", buffered: true });
"""


@contextmanager
def recording(tabs: Tabs, size: tuple[int, int]) -> Iterator[Page]:
    """A tab of this size that records how far what it shows is moved."""
    page = tabs.empty()
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.add_init_script(RECORD)
    yield page
    page.close()


@contextmanager
def separate_tab(browser: Browser) -> Iterator[Page]:
    """A tab that keeps its session's storage when a page is loaded again."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(SOON_MS)
    yield page
    context.close()


def jumps(page: Page) -> list[Any]:
    """The layout shifts since the last call, with what was moved, if they are more than 0.1 in all.

    Those that follow an action at once count too, unlike in the browser's sum: how fast they follow
    depends on the machine.
    """
    settled(page)
    # The browser reports a shift after the frame in which it was drawn.
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 200)))")
    shifts = page.evaluate("() => shifts.splice(0)")
    return shifts if sum(each["value"] for each in shifts) > 0.1 else []


def photo_below(page: Page) -> float:
    """How far below the field of the search the photo is, in pixels."""
    top = "selector => document.querySelector(selector).getBoundingClientRect().top"
    below: float = page.evaluate(top, ".st-key-reference") - page.evaluate(top, ".st-key-ask")
    return below


def room(page: Page, of: str) -> float:
    """The height of an element, in pixels."""
    height: float = page.locator(of).evaluate("each => each.getBoundingClientRect().height")
    return height


def hold(page: Page, pattern: str) -> Callable[[], None]:
    """Hold files back; returns what lets them go."""
    held: list[Route] = []
    page.route(pattern, lambda route: held.append(route))

    def let_go() -> None:
        for route in held:
            route.continue_()
        page.unroute(pattern)

    return let_go


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_what_is_drawn_stays_where_it_is(
    tabs: Tabs, address: str, shop: Shop, size: tuple[int, int]
) -> None:
    with recording(tabs, size) as page:
        let_go = hold(page, LATE)
        page.goto(address)
        expect(page.locator(".st-key-card-0 [data-testid=stSkeleton]").first).to_be_visible()
        let_go()
        expect(page.locator(".card").first).to_be_visible()
        assert jumps(page) == []
        search_photo(page, shop)
        assert jumps(page) == []
        place = photo_below(page)
        page.get_by_role("button", name="Next page").click()
        expect(page.get_by_role("heading", name="Results 13")).to_be_visible()
        assert jumps(page) == []
        page.locator("[class*=st-key-pin-] button").first.click()
        expect(page.locator(".st-key-pinned")).to_have_count(1)
        settled(page)
        assert photo_below(page) == place
        for path in ("health", "index"):
            page.goto(f"{address}/{path}")
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            assert jumps(page) == []


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_pair_to_judge_has_room_before_its_pictures_fields_and_form_are_drawn(
    tabs: Tabs, address: str, size: tuple[int, int]
) -> None:
    with recording(tabs, size) as page:
        let_go = hold(page, LATE)
        page.goto(f"{address}/duplicates")
        expect(page.locator(".st-key-pair-fields [data-testid=stSkeleton]")).to_be_visible()
        expect(page.locator(".stForm [data-testid=stSkeleton]").first).to_be_visible()
        settled(page)
        kept = [room(page, of) for of in (".st-key-pair", ".stForm", ".st-key-pair-fields")]
        let_go()
        expect(page.locator(".st-key-pair-fields .title")).to_be_visible()
        expect(page.locator(".stForm").get_by_role("textbox")).to_be_visible()
        assert jumps(page) == []
        taken = [room(page, of) for of in (".st-key-pair", ".stForm", ".st-key-pair-fields")]
        assert kept[:2] == pytest.approx(taken[:2], rel=0.15)
        assert kept[2] > taken[2] / 2  # nothing below the first fields is seen


def test_after_a_file_that_cannot_be_loaded_the_page_is_loaded_again_once_and_says_so(
    browser: Browser, address: str
) -> None:
    with separate_tab(browser) as page:
        loads: list[int] = []
        # Modules may be asked for before the document that needs them is complete.
        page.on("request", lambda asked: loads.append(1) if asked.is_navigation_request() else None)
        # A browser asks once more for a module that failed before it was needed.
        page.route(
            "**/static/js/Html.*.js",
            lambda route: route.abort() if len(loads) < 2 else route.continue_(),
        )
        page.goto(address)
        expect(page.locator(".card").first).to_be_visible()
        notice = page.get_by_role("status").filter(has_text="loaded again")
        expect(notice).to_be_visible()
        notice.get_by_role("button", name="Close").click()
        expect(notice).to_have_count(0)
        assert len(loads) == 2
        page.evaluate("sessionStorage.clear()")
        page.route("**/static/js/Html.*.js", lambda route: route.abort())
        page.reload()
        expect(page.get_by_role("alert").get_by_text("cannot be loaded")).to_be_visible()
        assert len(loads) == 4
        page.unroute_all()
        page.get_by_role("button", name="Load again").click()
        expect(page.locator(".card").first).to_be_visible()


def answer(address: str, *, accept: str, packed: bool = True) -> tuple[bytes, dict[str, str]]:
    headers = {"Accept": accept} | ({"Accept-Encoding": "gzip, br"} if packed else {})
    with urlopen(Request(address, headers=headers)) as response:
        return response.read(), {name.lower(): value for name, value in response.headers.items()}


def test_the_document_and_the_code_are_sent_compressed_to_those_who_can_read_that(
    address: str,
) -> None:
    plain, _ = answer(f"{address}/duplicates", accept="text/html", packed=False)
    document, headers = answer(f"{address}/duplicates", accept="text/html")
    assert (gzip.decompress(document), headers["content-encoding"]) == (plain, "gzip")
    assert headers["cache-control"] == "no-cache" and b".st-key-cards" in plain
    _, _, rest = plain.decode().partition('<script type="module" crossorigin src=".')
    script = f"{address}{rest.partition(chr(34))[0]}"
    code, sent = answer(script, accept="*/*")
    unpacked, as_it_is = answer(script, accept="*/*", packed=False)
    assert gzip.decompress(code) == unpacked and len(code) < len(unpacked) / 2
    assert "immutable" in sent["cache-control"] and sent["vary"] == "Accept-Encoding"
    assert "content-encoding" not in as_it_is
    for path in ("_stcore/health", "static/js/none.js", "media/none"):
        assert b".st-key-cards" not in _body(f"{address}/{path}")


def _body(address: str) -> bytes:
    try:
        return answer(address, accept="*/*")[0]
    except OSError:  # not found
        return b""


def test_the_signs_that_explain_a_field_are_named_in_german(browser: Browser) -> None:
    with separate_tab(browser) as page:
        empty = '<html lang="en"><head></head><body></body></html>'
        page.set_content(document(empty, (), "de").decode())
        page.evaluate(
            "document.body.innerHTML = '<button aria-label=\"Help for Ihr Name\">?</button>'"
        )
        expect(page.get_by_role("button", name="Hilfe zu Ihr Name", exact=True)).to_be_visible()
