"""The objects found in the user's photo: a button for each, with its best match, and for the whole.

The row stays where it is when one of them is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from app.types import RegionMatches
from app.ui.components.product_cards import display_name
from app.ui.formatting import escape_markdown, format_decimal
from app.ui.search_form.picture_inputs import percent_box
from app.ui.search_form.state import PercentBox
from app.ui.translation import _


def draw(
    regions: Sequence[RegionMatches],
    chosen: PercentBox | None,
    choose: Callable[[PercentBox | None], None],
    *,
    with_matches: bool = True,
) -> None:
    """Draw the buttons side by side; `choose` searches with a part of the photo, None is the whole,
    and the part that is `chosen` is marked. `with_matches`: the matches are those of this search.
    """
    if not regions:
        return
    with st.container(key="objects", horizontal=True, gap="small"):
        _button(_("Whole photo"), "all-objects", ":material/image:", None, chosen, choose)
        for number, region in enumerate(regions, start=1):
            text = _("Object {number}: {product}") if with_matches else _("Object {number}")
            label = text.format(number=number, product=best_match(region))
            key, box = f"only-object-{number}", percent_box(region.box)
            _button(label, key, ":material/crop:", box, chosen, choose)


def _button(
    label: str,
    key: str,
    icon: str,
    box: PercentBox | None,
    chosen: PercentBox | None,
    choose: Callable[[PercentBox | None], None],
) -> None:
    is_chosen = box == chosen
    text = _("Search with this part of the photo only")
    if box is None:
        text = _("Search with the whole photo")
    st.button(
        escape_markdown(label),
        key=key, icon=":material/check:" if is_chosen else icon, help=text,
        type="primary" if is_chosen else "secondary",
        on_click=choose, args=(box,),
    )  # fmt: skip


def best_match(region: RegionMatches) -> str:
    """The object's best match with its similarity."""
    if not region.matches:
        return _("no product")
    best = region.matches[0]
    similarity = "" if best.similarity is None else f" ({format_decimal(best.similarity, 2)})"
    return f"{display_name(best.product)}{similarity}"
