"""The query photo with a box to draw on it: a component of our own in plain JavaScript.

Streamlit has no widget for a part of a picture. The sliders of `picture_inputs` do the same in
numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from app.ui.formatting import data_url
from app.ui.search_form.state import PercentBox
from app.ui.shared import uninterrupted
from app.ui.translation import _

_FOLDER = Path(__file__).parent

_component = st.components.v2.component(
    "lookalike_photo_box",
    css=(_FOLDER / "photo_box.css").read_text(encoding="utf-8"),
    js=(_FOLDER / "photo_box.js").read_text(encoding="utf-8"),
)

KEY = "search_photo_box"


def draw(
    jpeg: bytes,
    alt: str,
    box: PercentBox | None,
    objects: Sequence[tuple[PercentBox, str]],
    choose: Callable[[PercentBox | None], None],
) -> None:
    """Draw a photo (JPEG) with its box. `objects` are the boxes that are offered, each with a
    label; `choose` gets the box that the user draws or chooses, None for the whole photo."""
    _component(
        key=KEY,
        data={
            "image": data_url(jpeg),
            "alt": alt,
            "box": box,
            "objects": [each for each, _label in objects],
            "labels": [label for _box, label in objects],
            "hint": _hint(box, objects),
            "texts": _texts(),
        },
        on_box_change=partial(_chosen, choose),
    )


def _hint(box: PercentBox | None, objects: Sequence[object]) -> str:
    """What can be done with the photo, in a sentence."""
    if box is not None:
        return _("Only this part is searched. Drag the frame or its corners to change it.")
    if objects:
        return _("Choose a frame, or drag over the product to search only that part.")
    return _("Drag over the product to search only that part of the photo.")


def _texts() -> dict[str, str]:
    return {
        "box": _(
            "Part of the photo that is searched: from {left} to {right} percent across and "
            "{top} to {bottom} percent down."
        ),
        "whole": _("Part of the photo that is searched: the whole photo."),
        "keys": _(
            "Arrow keys move it, Shift and arrow keys resize it, Enter draws a box, Escape takes "
            "it away."
        ),
        "draw": _("Draw a box"),
        "done": _("Show results"),
    }


@uninterrupted
def _chosen(choose: Callable[[PercentBox | None], None]) -> None:
    value: Any = st.session_state[KEY]["box"]
    edges = value and value["edges"]
    if edges is None:
        choose(None)
        return
    left, top, right, bottom = (min(max(int(edge), 0), 100) for edge in edges)
    if left < right and top < bottom:
        choose((left, top, right, bottom))
