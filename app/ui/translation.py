"""The language of the present session, and messages in it.

Messages are written in English in the code: `_` and `ngettext` translate them when they are drawn,
`N_` marks one that is translated later. What stands in a message is filled in by `str.format`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import streamlit as st
from babel import Locale, UnknownLocaleError
from streamlit.runtime.scriptrunner import get_script_run_ctx

from app.config import Settings
from app.ui.languages import ENGLISH, N_, PARAMETER, catalogue, languages, page_language

__all__ = [
    "N_",
    "choose",
    "is_chosen",
    "joined",
    "language",
    "locale",
    "ngettext",
    "restore",
    "url_parameters",
]

LANGUAGE = "page_language"
CHOSEN = "page_language_chosen"
"""Session keys of the language, and whether the visitor chose it."""


def language() -> str:
    """The language of the present session; English outside of one."""
    if get_script_run_ctx(suppress_warning=True) is None:
        return ENGLISH
    state = st.session_state
    if LANGUAGE not in state:
        restore()
    chosen: str = state[LANGUAGE]
    return chosen


def restore() -> None:
    """Take the language from the address, in a new session and when the user went back or forward
    to one that names another. One that an address names counts as chosen: other pages do not have
    it in their addresses."""
    state, asked = st.session_state, st.query_params.get(PARAMETER, "")
    if asked in languages():
        choose(asked)
    elif LANGUAGE not in state:
        header = st.context.locale or st.context.headers.get("Accept-Language") or ""
        cookies = st.context.cookies
        state[LANGUAGE] = page_language(header, {}, cookies, Settings().page_language)


def choose(name: str) -> None:
    """Change to a language, which later visits have too; a callback."""
    st.session_state[LANGUAGE], st.session_state[CHOSEN] = name, True


def is_chosen() -> bool:
    """Whether the visitor chose the language in this session."""
    return bool(st.session_state.get(CHOSEN))


def url_parameters() -> dict[str, list[str]]:
    """The query parameter of the language, if the address names the present one."""
    named = st.query_params.get(PARAMETER, "")
    return {PARAMETER: [named]} if named == language() else {}


def locale() -> Locale:
    """How numbers, dates and prices are written: the language, with the region of the browser if
    that has the same language."""
    region = ""
    if get_script_run_ctx(suppress_warning=True) is not None:
        region = st.context.locale or ""
    return _locale(language(), region)


@lru_cache(maxsize=256)  # browsers name the region
def _locale(language: str, region: str) -> Locale:
    try:
        own = Locale.parse(region, sep="-")
    except (ValueError, UnknownLocaleError):
        return Locale(language)
    return own if own.language == language else Locale(language)


def _(message: str) -> str:
    """A message in the language of the session."""
    return catalogue(language()).gettext(message)


def ngettext(one: str, many: str, count: int) -> str:
    """The form of a message for a number, in the language of the session."""
    return catalogue(language()).ngettext(one, many, count)


def joined(parts: Sequence[str]) -> str:
    """Parts as a list in words: "a, b and c"."""
    *first, last = parts
    if not first:
        return last
    return _("{several} and {last}").format(several=", ".join(first), last=last)
