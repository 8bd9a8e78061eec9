"""The objects found in the user's photo: each in its frame, with its best match and a button."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app.types import Region, RegionMatches
from app.ui.components import result_pages
from app.ui.components.product_cards import display_name
from app.ui.formatting import escape_markdown
from app.ui.search_form.picture_inputs import draw_picture
from app.ui.search_form.uploads import ACROSS, DOWN


def draw(regions: Sequence[RegionMatches], preview: bytes) -> None:
    """Draw the objects side by side; `preview` is a JPEG of the photo. Nothing without objects."""
    if not regions:
        return
    st.subheader(f"{len(regions)} object{'s' * (len(regions) != 1)} in your photo", anchor=False)
    with st.container(key="objects", horizontal=True):
        for number, region in enumerate(regions, start=1):
            with st.container(key=f"object-{number}", width=240):
                draw_picture(preview, f"Object {number} of your photo", region.box)
                st.caption(escape_markdown(best_match(region)))
                st.button(
                    f"Only object {number}", key=f"only-object-{number}", type="tertiary",
                    help="Search with this part of the photo alone.",
                    on_click=choose, args=(region.box,),
                )  # fmt: skip


def best_match(region: RegionMatches) -> str:
    """The object's best match with its similarity."""
    if not region.matches:
        return "No product"
    best = region.matches[0]
    similarity = "" if best.similarity is None else f" ({best.similarity:.2f})"
    return f"{display_name(best.product)}{similarity}"


def choose(box: Region) -> None:
    """Set the sliders of the searched part to a box; a callback."""
    left, top, right, bottom = (round(100 * edge) for edge in box)
    st.session_state[ACROSS], st.session_state[DOWN] = (left, right), (top, bottom)
    result_pages.request_scroll()
