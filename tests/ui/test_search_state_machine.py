"""What is asked has one source: random steps in a browser, after each of which address, widgets and
results agree."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

from app.bootstrap import App
from app.config import Settings
from app.search.vector_cache import VectorCache
from app.types import Query
from app.ui.components.result_pages import ResultPages
from app.ui.search_form.state import (
    DEFAULT,
    REFERENCES,
    SearchFormState,
    cleared,
    count_changed,
    to_filters,
)
from app.ui.search_form.url_state import from_url
from support.browsing import SOON_MS, Shop, settled, skus, upload

# These tests share the shop, server and browser of the other tests of the search page.
pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("search_page")]

STEPS = 16
SEEDS = [int(seed) for seed in os.environ.get("LOOKALIKE_TEST_STATE_SEEDS", "3").split()]
WORDS = ("lamp", "blue", "ceramic mug")
FACETS = ("category", "colour")


@dataclass
class Oracle:
    """The results of a form by the services, without a page."""

    app: App
    photo: bytes

    def __post_init__(self) -> None:
        self._vectors = VectorCache()

    def skus(self, form: SearchFormState) -> list[str]:
        filters = to_filters(form)
        if not (form.photo or form.sku or form.words):
            first = (form.page - 1) * form.k
            listed = self.app.catalog.browse(filters, first=first, count=form.k)
            return [each.product.sku for each in listed.products]
        query = Query(
            picture=self.photo if form.photo else None, sku=form.sku or None,
            words=form.words or None, filters=filters, k=form.k, fold=form.fold,
            min_similarity=form.min_similarity,
        )  # fmt: skip
        search = lambda page: self.app.search.search(page, self._vectors)  # noqa: E731
        _, result = ResultPages(query).result(form.page, search)
        return [match.product.sku for match in result.matches]


@pytest.fixture
def oracle(shop: Shop) -> Iterator[Oracle]:
    with App(Settings(home=shop.home, model="embedded")) as app:
        yield Oracle(app, shop.photo.read_bytes())


class User:
    """Somebody who uses the page. `asked` is what each entry of the history asks, and `at` the one
    that is shown; `kept` are the photos of the session."""

    def __init__(self, page: Page, oracle: Oracle, seed: int) -> None:
        self.page, self.oracle, self.random = page, oracle, Random(seed)
        self.asked, self.at, self.kept = [DEFAULT], 0, set[str]()

    def step(self) -> str:
        """Do something that can be done now; returns what."""
        steps = {
            "words": self.words, "filter": self.filter, "price": self.price, "photo": self.photo,
            "turn": self.turn, "back": self.back, "forward": self.forward, "reload": self.reload,
            "more like this": self.more_like, "remove photo": self.remove_photo,
            "take a filter off": self.take_filter_off, "clear": self.clear,
            "clear and words at once": self.clear_and_words,
        }  # fmt: skip
        possible = {
            "remove photo": bool(self.form.photo), "back": self.at > 0,
            "forward": self.at + 1 < len(self.asked),
        } | dict.fromkeys(("take a filter off", "clear", "clear and words at once"),
                          count_changed(self.form) > 0)  # fmt: skip
        name = self.random.choice([name for name in steps if possible.get(name, True)])
        steps[name]()
        return name

    @property
    def form(self) -> SearchFormState:
        return self.asked[self.at]

    def ask(self, **changed: object) -> None:
        """Note a change that the user made; what was forward of it is gone."""
        settled(self.page)
        form = replace(self.form, **({"page": 1} | changed))  # type: ignore[arg-type]
        if form != self.form:
            self.asked[self.at + 1 :] = [form]
            self.at += 1

    def words(self) -> None:
        words = self.random.choice([each for each in WORDS if each != self.form.words])
        self.type(words)  # the same again would be no change, and stay on a later page
        self.ask(words=words)

    def more_like(self) -> None:
        cards = skus(self.page)
        if cards:
            self.page.get_by_role("button", name="More like this").first.click()
            self.ask(**(REFERENCES | {"sku": cards[0], "words": ""}))

    def photo(self) -> None:
        upload(self.page, "photo.jpg", self.oracle.photo)
        expect(self.page.get_by_alt_text("Your photo photo.jpg").first).to_be_visible()
        settled(self.page)
        self.page.wait_for_function(
            "old => !location.search.includes('photo=') || !old || !location.search.includes(old)",
            arg=self.form.photo,
        )
        photo = parse_qs(urlsplit(self.page.url).query)["photo"][0]
        assert photo not in self.kept
        self.kept.add(photo)
        words = {"words": ""} if self.form.compares else {}  # those typed for another picture
        self.ask(**(REFERENCES | words | {"photo": photo}))

    def remove_photo(self) -> None:
        self.page.get_by_role("button", name="Remove photo").click()
        self.ask(**REFERENCES)

    def filter(self) -> None:
        name, place = self.random.choice(FACETS), self.random.randrange(3)
        button = self.page.locator(f".st-key-search_{name}_box button").first
        if not button.is_visible():
            return
        button.click()
        options = self.options()
        if options.count() > place:
            option = options.nth(place)
            value = re.sub(r" \([\d,]+\)$", "", option.inner_text())
            option.click()
            settled(self.page)
            chosen = getattr(self.form, name)
            rest = tuple(each for each in chosen if each != value)
            self.ask(**{name: rest if value in chosen else (*chosen, value)})
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("Escape")
        self.page.locator("h1").click()

    def options(self) -> Locator:
        """The values in the open box."""
        box = self.page.get_by_test_id("stPopoverBody")
        expect(box).to_be_visible()
        expect(box.get_by_role("combobox").or_(box.get_by_test_id("stButtonGroup"))).to_be_visible()
        if box.get_by_role("combobox").count():
            box.get_by_role("combobox").click()
            options = self.page.get_by_role("option")
        else:
            options = box.get_by_test_id("stButtonGroup").get_by_role("button")
        expect(options.first).to_be_visible()
        return options

    def price(self) -> None:
        price = self.random.choice([each for each in (20.0, 60.5) if each != self.form.price_from])
        button = self.page.locator(".st-key-search_price_box button").first
        if not button.is_visible():
            return
        button.click()
        field = self.page.get_by_role("spinbutton", name="Price from")
        field.fill(str(price))
        field.press("Enter")
        self.ask(price_from=price)
        self.page.locator("h1").click()

    def take_filter_off(self) -> None:
        self.page.locator(".st-key-chosen-0 button").click()
        for name in (*FACETS, "price_from"):
            if value := getattr(self.form, name):
                rest = value[1:] if isinstance(value, tuple) else None
                return self.ask(**{name: rest})

    def clear(self) -> None:
        self.page.locator(".st-key-clear button").click()
        self.ask(**cleared())

    def clear_and_words(self) -> None:
        """Words interrupt what follows the click, or arrive with it."""
        words = self.random.choice(WORDS)
        self.page.locator(".st-key-clear button").click()
        self.type(words)
        self.ask(**cleared(), words=words)
        # The browser has learnt both addresses or only the last: no step goes back from here.
        self.asked, self.at = [self.form], 0

    def turn(self) -> None:
        name, step = self.random.choice([("Next page", 1), ("Next page", 1), ("Previous page", -1)])
        button = self.page.get_by_role("button", name=name)
        if button.count() and button.is_enabled():
            button.click()
            self.ask(page=self.form.page + step)

    def back(self) -> None:
        self.at -= 1
        self.page.go_back()
        self.photo_may_be_gone()

    def forward(self) -> None:
        self.at += 1
        self.page.go_forward()
        self.photo_may_be_gone()

    def reload(self) -> None:
        self.page.reload()
        expect(self.page.get_by_role("heading", level=1)).to_be_visible()
        self.kept.clear()
        if self.form.photo:
            self.ask(**REFERENCES)

    def photo_may_be_gone(self) -> None:
        if self.form.photo and self.form.photo not in self.kept:
            self.asked[self.at] = replace(self.form, **REFERENCES, page=1)

    def type(self, words: str) -> None:
        field = self.page.get_by_role("textbox", name="Search")
        field.fill(words)
        field.press("Enter")

    def wait_for_address(self, form: SearchFormState) -> None:
        """Wait until the address asks for the form: a click is answered a moment after it, and
        other results may be the same."""
        deadline = time.monotonic() + SOON_MS / 1000
        while (found := from_url(parse_qs(urlsplit(self.page.url).query))) != (form, ()):
            assert time.monotonic() < deadline, (found, form)
            self.page.wait_for_timeout(50)

    def all_agree(self) -> None:
        form = self.form
        expected = self.oracle.skus(form)
        self.wait_for_address(form)
        settled(self.page)
        cards = self.page.locator(".st-key-results .card .last span:last-child")
        expect(cards).to_have_text(expected)
        expect(self.page.get_by_role("textbox", name="Search")).to_have_value(form.words)
        counts = {name: len(getattr(form, name)) for name in FACETS}
        chips = self.page.locator("[class*=st-key-chosen-] button")
        expect(chips).to_have_count(sum(counts.values()) + bool(form.price_from))
        for name in filter(counts.get, FACETS):
            button = self.page.locator(f".st-key-search_{name}_box button")
            expect(button).to_contain_text(f"{name.capitalize()} ({counts[name]})")
        assert bool(self.page.locator(".st-key-reference").count()) == bool(form.photo or form.sku)


@pytest.mark.parametrize("seed", SEEDS)
def test_after_random_steps_address_widgets_and_results_agree(
    open_page: Callable[..., Page], address: str, oracle: Oracle, seed: int
) -> None:
    user = User(open_page(address), oracle, seed)
    steps: list[str] = []
    try:
        user.all_agree()
        for _ in range(STEPS):
            steps.append(user.step())
            user.all_agree()
    except BaseException as exc:
        asked = f"asked {user.form}, the page has {user.page.url}"
        exc.add_note(f"after {', '.join(steps)}; {asked}")
        raise
