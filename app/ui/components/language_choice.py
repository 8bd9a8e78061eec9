"""The choice of a language below each page."""

from __future__ import annotations

import streamlit as st
from babel import Locale
from streamlit.runtime.scriptrunner import get_script_run_ctx

from app.ui import translation
from app.ui.languages import languages
from app.ui.shared import uninterrupted
from app.ui.translation import _

KEY = "language"

CONTAINER = "language-in"
"""Beginning of the key of the container. `page_head.js` learns of it the language of the document,
and whether it has to be kept."""


def restore() -> None:
    """Take the language from the address when the user went back or forward."""
    context = get_script_run_ctx()
    if context is not None and context.is_history_navigation:
        translation.restore()


def draw() -> None:
    """Draw the choice; one that was made is kept by the browser."""
    language, offered = translation.language(), languages()
    key = f"{CONTAINER}-{language}{'-chosen' * translation.is_chosen()}"
    with st.container(key=key, horizontal=True, horizontal_alignment="right"):
        # In each language the choice is a widget of its own, as its label is another one.
        key = f"{KEY}-{language}"
        st.selectbox(
            _("Language"), offered, index=offered.index(language), key=key, width=160,
            format_func=_own_name, on_change=_take, args=(key,), label_visibility="collapsed",
        )  # fmt: skip


@uninterrupted
def _take(key: str) -> None:
    translation.choose(st.session_state[key])


def _own_name(language: str) -> str:
    """The name of a language in itself."""
    name = Locale(language).get_display_name(language) or language
    return name[:1].upper() + name[1:]
