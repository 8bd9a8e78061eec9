"""The objects found in a photo, on the search page."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest

from app.ui.search_form.uploads import ACROSS, DOWN


def script() -> None:
    from app.types import Match, Product, RegionMatches
    from app.ui.components import photo_objects

    match = Match(1, Product("P1", title="Blue *lamp*"), 1, 1, 0.734, "1.png", b"")
    regions = [
        RegionMatches((0.1, 0.2, 0.504, 0.9), 0.8, (match,)),
        RegionMatches((0.5, 0.0, 1.0, 0.4), None, ()),
    ]
    photo_objects.draw(regions, b"jpeg")


def test_each_object_has_its_frame_its_best_match_and_a_button_that_chooses_its_part() -> None:
    page = AppTest.from_function(script).run()
    assert not page.exception
    assert page.subheader[0].value == "2 objects in your photo"
    assert [caption.value for caption in page.caption] == [
        "Blue \\*lamp\\* \\(0\\.73\\)",
        "No product",
    ]
    page.button(key="only-object-1").click().run()
    assert page.session_state[ACROSS] == (10, 50) and page.session_state[DOWN] == (20, 90)
