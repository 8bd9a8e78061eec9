"""The last searches of the session, to be made again."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from app.ui.engine_texts import quoted
from app.ui.formatting import escape_markdown
from app.ui.search_form.session_state import current, replace_form
from app.ui.search_form.state import PercentBox, SearchFormState, count_changed
from app.ui.translation import _, ngettext

RECENT = "search_recent"
"""Session key of the forms of the last searches, the latest first."""

MAX_RECENT = 8


def remember(form: SearchFormState) -> None:
    """Note a search; the same one counts once."""
    form = replace(form, page=1)
    others = [each for each in _recent() if each != form]
    st.session_state[RECENT] = (form, *others)[:MAX_RECENT]


def draw() -> None:
    """Draw the searches as buttons in a box; nothing before the first.

    The first one is there before it is answered: a box that came with the second would move the
    photo down.
    """
    form = replace(current(), page=1)
    asked = form.photo or form.shared or form.link or form.sku or form.words
    searches = _recent() or ((form,) if asked else ())
    if not searches:
        return
    with st.popover(_("Recent"), icon=":material/history:", key="recent_box"):
        for place, form in enumerate(searches):
            st.button(
                escape_markdown(label(form)), key=f"recent-{place}", type="tertiary",
                width="stretch", on_click=replace_form, args=(form,),
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


def _recent() -> tuple[SearchFormState, ...]:
    searches: tuple[SearchFormState, ...] = st.session_state.get(RECENT, ())
    return searches
