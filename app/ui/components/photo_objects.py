"""The objects found in the user's photo: a button for each, with its best match."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from app.types import RegionMatches
from app.ui.components.product_cards import display_name
from app.ui.formatting import escape_markdown, format_decimal
from app.ui.search_form.picture_inputs import percent_box
from app.ui.search_form.state import PercentBox
from app.ui.translation import _


def draw(regions: Sequence[RegionMatches], choose: Callable[[PercentBox], None]) -> None:
    """Draw the buttons side by side; `choose` searches with a part of the photo."""
    if not regions:
        return
    with st.container(key="objects", horizontal=True, gap="small"):
        for number, region in enumerate(regions, start=1):
            label = _("Object {number}: {product}").format(
                number=number, product=best_match(region)
            )
            st.button(
                escape_markdown(label),
                key=f"only-object-{number}", icon=":material/crop:",
                help=_("Search with this part of the photo only"),
                on_click=choose, args=(percent_box(region.box),),
            )  # fmt: skip


def best_match(region: RegionMatches) -> str:
    """The object's best match with its similarity."""
    if not region.matches:
        return _("no product")
    best = region.matches[0]
    similarity = "" if best.similarity is None else f" ({format_decimal(best.similarity, 2)})"
    return f"{display_name(best.product)}{similarity}"
