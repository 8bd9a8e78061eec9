"""The objects found in a photo, on the search page."""

from __future__ import annotations

import re

from streamlit.testing.v1 import AppTest


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
