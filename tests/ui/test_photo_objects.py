"""The objects found in a photo, on the search page."""

from __future__ import annotations

import re
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from app.types import Match, Plan, Product, Query, Region, RegionMatches, SearchResult
from app.ui.search_form import picture_inputs
from app.ui.search_form.picture_inputs import distinct
from app.ui.search_form.state import SearchFormState


def script() -> None:
    import streamlit as st

    from app.types import Match, Product, RegionMatches
    from app.ui.components import photo_objects

    match = Match(1, Product("P1", title="Blue *lamp*"), 1, 1, 0.734, "1.png", b"")
    regions = [
        RegionMatches((0.1, 0.2, 0.504, 0.9), 0.8, (match,)),
        RegionMatches((0.5, 0.0, 1.0, 0.4), None, ()),
    ]
    photo_objects.draw(
        regions,
        st.session_state.get("box"),
        lambda box: st.session_state.update(box=box),
        with_matches=not st.session_state.get("other_words"),
    )


def labels(page: AppTest) -> list[str]:
    assert not page.exception
    return [re.sub(r"\\(.)", r"\1", button.label) for button in page.button]


def marked(page: AppTest) -> list[str]:
    return [button.key for button in page.button if button.proto.type == "primary"]


def test_each_object_has_a_button_with_its_best_match_that_chooses_its_part() -> None:
    page = AppTest.from_function(script).run()
    expected = ["Whole photo", "Object 1: Blue *lamp* (0.73)", "Object 2: no product"]
    assert labels(page) == expected and marked(page) == ["all-objects"]
    page.button(key="only-object-1").click().run()
    assert page.session_state["box"] == (10, 20, 50, 90)
    page.run()
    assert labels(page) == expected and marked(page) == ["only-object-1"]
    page.button(key="all-objects").click().run()
    assert page.session_state["box"] is None


def test_objects_have_no_match_that_was_found_for_something_else() -> None:
    page = AppTest.from_function(script)
    page.session_state["other_words"] = True
    assert labels(page.run()) == ["Whole photo", "Object 1", "Object 2"]


def test_an_object_with_the_best_match_of_a_surer_one_is_not_offered() -> None:
    def region(left: float, *skus: str) -> RegionMatches:
        matches = (Match(1, Product(sku), 1, 1, 0.5, "1.png", b"") for sku in skus)
        return RegionMatches((left, 0.0, 1.0, 1.0), None, tuple(matches))

    regions = [region(0.1, "A", "B"), region(0.2, "A"), region(0.3), region(0.4, "B", "A")]
    regions.append(region(0.5))
    assert distinct(regions) == [regions[0], regions[2], regions[3]]


def test_buttons_are_those_of_the_boxes_on_the_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other words change the matches, and not which objects are offered."""
    match = Match(1, Product("A"), 1, 1, 0.5, "1.png", b"")
    other = Match(1, Product("B"), 1, 1, 0.5, "1.png", b"")
    boxes = [(0.0, 0.0, 0.5, 1.0), (0.25, 0.0, 1.0, 1.0)]
    form, state = SearchFormState(photo="p"), dict[str, Any]()
    monkeypatch.setattr(picture_inputs.st, "session_state", state)

    def offered(words: str, *matches: Match) -> list[Region]:
        regions = tuple(
            RegionMatches(box, None, (each,)) for box, each in zip(boxes, matches, strict=True)
        )
        plan = Plan("exact", "", "build", "")
        result, query = SearchResult((), plan, regions=regions), Query(words=words)
        picture_inputs.remember_objects(form, query, result)
        found, current = picture_inputs.matches_of_objects(form, query, result)
        assert current
        return [each.box for each in found]

    assert offered("lamp", match, match) == boxes[:1]
    assert offered("mug", match, other) == boxes[:1]
