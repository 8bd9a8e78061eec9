"""The last searches of the session, to be made again."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from app.ui.formatting import escape_markdown
from app.ui.search_form.session_state import replace_form
from app.ui.search_form.state import SearchFormState, count_changed

RECENT = "search_recent"
"""Session key of the forms of the last searches, the latest first."""

MAX_RECENT = 8


def remember(form: SearchFormState) -> None:
    """Note a search; the same one counts once."""
    form = replace(form, page=1)
    others = [each for each in _recent() if each != form]
    st.session_state[RECENT] = (form, *others)[:MAX_RECENT]


def draw() -> None:
    """Draw the searches as buttons in a box; nothing before the first."""
    searches = _recent()
    if not searches:
        return
    with st.popover("Recent", icon=":material/history:", key="recent_box"):
        for place, form in enumerate(searches):
            st.button(
                escape_markdown(label(form)), key=f"recent-{place}", type="tertiary",
                width="stretch", on_click=replace_form, args=(form,),
            )  # fmt: skip


def label(form: SearchFormState) -> str:
    """A search in a few words."""
    filters = count_changed(form)
    parts = [
        "Photo" if form.photo or form.shared else "",
        form.link,
        f"Like {form.sku}" if form.sku else "",
        f"part of it ({', '.join(f'{edge}%' for edge in form.box)})" if form.box else "",
        f"“{form.words}”" if form.words else "",
        f"{filters} filter{'s' * (filters != 1)}" if filters else "",
    ]
    return ", ".join(filter(None, parts))


def _recent() -> tuple[SearchFormState, ...]:
    searches: tuple[SearchFormState, ...] = st.session_state.get(RECENT, ())
    return searches
