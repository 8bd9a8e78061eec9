"""The last searches of the session, to be made again."""

from __future__ import annotations

from dataclasses import dataclass, replace

import streamlit as st

from app.images.thumbnails import open_thumbnail, thumbnail
from app.ui.components.product_dialog import AskedPicture
from app.ui.engine_texts import quoted
from app.ui.formatting import escape_markdown, img_tag
from app.ui.search_form.session_state import current, replace_form
from app.ui.search_form.state import PercentBox, SearchFormState, count_changed
from app.ui.translation import _, ngettext

RECENT = "search_recent"
"""Session key of the last searches, the latest first."""

MAX_RECENT = 8

PICTURE_SIDE = 88
"""Longer side of the picture of a search, in pixels; it is shown at half of that."""


@dataclass(frozen=True, slots=True)
class RecentSearch:
    """A search, and a small JPEG of the picture it was by, if it was by one."""

    form: SearchFormState
    picture: bytes | None = None


def remember(form: SearchFormState, asked: AskedPicture | None) -> None:
    """Note a search, and what the part of a picture that it was by looks like; the same one counts
    once."""
    form = replace(form, page=1)
    known = next((each for each in _recent() if each.form == form), None)
    if known is None:
        known = RecentSearch(form, None if asked is None else _small(asked))
    others = [each for each in _recent() if each.form != form]
    st.session_state[RECENT] = (known, *others)[:MAX_RECENT]


def _small(asked: AskedPicture) -> bytes:
    picture = open_thumbnail(asked.preview)
    if asked.region is not None:
        left, top, right, bottom = asked.region
        width, height = picture.size
        picture = picture.crop((left * width, top * height, right * width, bottom * height))
    return thumbnail(picture, side=PICTURE_SIDE)


def draw() -> None:
    """Draw the searches as buttons in a box; nothing before the first.

    The first one is there before it is answered: a box that came with the second would move the
    photo down.
    """
    form = replace(current(), page=1)
    asked = form.photo or form.shared or form.link or form.sku or form.words
    searches = _recent() or ((RecentSearch(form),) if asked else ())
    if not searches:
        return
    with st.popover(_("Recent"), icon=":material/history:", key="recent_box"):
        for place, search in enumerate(searches):
            with st.container(key=f"search-{place}", horizontal=True):
                if search.picture is not None:
                    st.html(img_tag(search.picture, ""))
                st.button(
                    escape_markdown(label(search.form)), key=f"recent-{place}", type="tertiary",
                    width="stretch", on_click=replace_form, args=(search.form,),
                )  # fmt: skip


def label(form: SearchFormState) -> str:
    """A search in a few words."""
    filters = count_changed(form)
    parts = [
        _("Photo") if form.photo or form.shared else "",
        form.link,
        _("Like {sku}").format(sku=form.sku) if form.sku else "",
        _("part of it ({edges})").format(edges=_edges(form.box)) if form.box else "",
        quoted(form.words) if form.words else "",
        ngettext("{count} filter", "{count} filters", filters).format(count=filters)
        if filters
        else "",
    ]
    return ", ".join(filter(None, parts))


def _edges(box: PercentBox) -> str:
    return ", ".join(f"{edge}%" for edge in box)


def _recent() -> tuple[RecentSearch, ...]:
    searches: tuple[RecentSearch, ...] = st.session_state.get(RECENT, ())
    return searches
