"""Cursors: signed, bound to a search, shared by processes; pages while the catalogue changes."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api import cursors
from app.api.cursors import Cursors
from app.api.problems import BadCursor
from app.bootstrap import App
from app.search import page_budget
from app.types import Product
from support.api_client import ApiClient, api_served
from support.shop import add, add_products, numbered

SEARCH, OTHER = bytes(16), bytes([1] * 16)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_a_cursor_holds_what_was_shown(shown: list[str]) -> None:
    made = Cursors(lambda: b"secret")
    sealed = made.seal(SEARCH, shown)
    assert sealed is not None and made.open(sealed, SEARCH) == tuple(shown)


def test_a_changed_cursor_is_refused_wherever_it_was_changed() -> None:
    made = Cursors(lambda: b"secret")
    sealed = made.seal(SEARCH, ["A", "B"])
    assert sealed is not None
    data = base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(BadCursor):
            made.open(base64.urlsafe_b64encode(changed).decode(), SEARCH)
    for wrong in ("", "A", "é", "====", sealed[:-4], sealed + "AAAA", "A" * 100):
        with pytest.raises(BadCursor):
            made.open(wrong, SEARCH)


def test_a_cursor_of_another_search_or_another_secret_is_refused() -> None:
    sealed = Cursors(lambda: b"secret").seal(SEARCH, ["A"])
    assert sealed is not None
    with pytest.raises(BadCursor):
        Cursors(lambda: b"secret").open(sealed, OTHER)
    with pytest.raises(BadCursor):
        Cursors(lambda: b"another").open(sealed, SEARCH)


def test_too_many_products_end_the_pages() -> None:
    made = Cursors(lambda: b"secret")
    assert made.seal(SEARCH, ["A"] * cursors.MAX_SHOWN) is not None
    assert made.seal(SEARCH, ["A"] * (cursors.MAX_SHOWN + 1)) is None


@pytest.fixture
def served(app: App) -> Iterator[ApiClient]:
    add(app, numbered(12))
    with api_served(app) as client:
        yield client


def test_any_process_goes_on_with_a_cursor(served: ApiClient, app: App) -> None:
    asked: dict[str, Any] = {"sku": "P0001", "k": 3}
    first = served.post("/v1/search", asked).json()
    with App(app.settings, choose=app._choose.func) as other, api_served(other) as another:
        second = another.post("/v1/search", asked | {"cursor": first["cursor"]}).json()
    shown = [match["sku"] for page in (first, second) for match in page["matches"]]
    assert len(set(shown)) == 6


def test_pages_do_not_repeat_products_that_moved(served: ApiClient, app: App) -> None:
    """A better product is added after the first page, and one of that page deleted."""
    asked: dict[str, Any] = {"sku": "P0001", "k": 5}
    first = served.post("/v1/search", asked).json()
    shown = [match["sku"] for match in first["matches"]]
    add(app, {"NEW": [1]})
    app.catalog.delete([shown[0]])
    rest = served.post("/v1/search", asked | {"cursor": first["cursor"], "k": 50}).json()
    others = [match["sku"] for match in rest["matches"]]
    assert others[0] == "NEW" and not set(shown) & set(others)
    assert len(others) == 12 - 1 - 5 + 1  # all but the one asked with and those shown
    assert rest["cursor"] is None


def test_a_page_that_was_given_up_has_a_cursor(
    served: ApiClient, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_budget, "MIN_DEDUPLICATED", 4)
    monkeypatch.setattr(page_budget, "FOLD_FACTOR", 2)
    add_products(app, [(Product(f"SAME{n:02}", "Orova lamp"), [500]) for n in range(13)])
    asked: dict[str, Any] = {"sku": "SAME00", "k": 3}
    first = served.post("/v1/search", asked).json()
    assert len(first["matches"]) == 1 and len(first["matches"][0]["folded"]) == 9
    second = served.post("/v1/search", asked | {"cursor": first["cursor"]}).json()
    assert len(second["matches"]) == 3
    assert not any(match["sku"].startswith("SAME") for match in second["matches"])


def test_a_cursor_is_of_one_search(served: ApiClient) -> None:
    cursor = served.post("/v1/search", {"sku": "P0001", "k": 3}).json()["cursor"]
    for other in ({"sku": "P0002"}, {"sku": "P0001", "fold": False}, {"text": "title"}):
        refused = served.post("/v1/search", {"k": 3, "cursor": cursor} | other)
        assert refused.json()["type"] == "urn:lookalike:problem:bad-cursor"


def test_the_etag_changes_when_the_answer_does(served: ApiClient, app: App) -> None:
    path = "/v1/products/P0001/similar?k=3"
    etag = served.get(path).headers["etag"]
    add(app, {"WITHOUT A PICTURE": []})
    assert served.get(path, {"If-None-Match": etag}).status == 304
    add(app, {"NEW": [1]})
    changed = served.get(path, {"If-None-Match": etag})
    assert changed.status == 200 and changed.headers["etag"] != etag
    assert changed.json()["matches"][0]["sku"] == "NEW"
