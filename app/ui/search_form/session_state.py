"""The session: the wish of one person, kept in step with the widgets and the address."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from app.ui.search_form.state import FIELDS, SearchFormState, of
from app.ui.search_form.url_state import read, write

WISH = "search_wish"
ADDRESS = "search_address"
COMPLAINTS = "search_complaints"


def key(field: str) -> str:
    """The key of the widget that says a field of the wish."""
    return f"search_{field}"


def said(field: str) -> Any:
    """What the widget of a field says now; one that is not drawn says what it last said."""
    if key(field) in st.session_state:
        return st.session_state[key(field)]
    return getattr(st.session_state[WISH], field)


def arrive() -> None:
    """Fill the widgets: from the address somebody came by, or from what they said before.

    Widgets that were not drawn in the last run, such as those of another page, have forgotten what
    they said; the wish has not.
    """
    state = st.session_state
    given = _given()
    from_another_page = WISH in state and key("by") not in state
    if WISH not in state or (given != state[ADDRESS] and not from_another_page):
        wish, state[COMPLAINTS] = read(given)
        put(wish)
    for field in FIELDS:
        if key(field) not in state:
            _fill(field, getattr(state[WISH], field))


def put(wish: SearchFormState) -> None:
    """Make this the wish, whatever the widgets said; before they are drawn, or in a callback."""
    st.session_state[WISH] = wish
    for field in FIELDS:
        _fill(field, getattr(wish, field))


def change(**fields: Any) -> None:
    """Change some fields of the wish; as `put`."""
    put(replace(now(), **fields))


def now() -> SearchFormState:
    """The wish that the widgets say."""
    return of({field: said(field) for field in FIELDS})


def settle() -> SearchFormState:
    """The same, now that all are drawn; it is in the address from now on."""
    wish = now()
    address = write(wish)
    st.session_state[WISH], st.session_state[ADDRESS] = wish, address
    if address != _given():
        st.query_params.from_dict(address)
    return wish


def complaints() -> tuple[str, ...]:
    """What was wrong with the address that somebody came by, in sentences; told once."""
    found: tuple[str, ...] = st.session_state.pop(COMPLAINTS, ())
    return found


def _given() -> dict[str, list[str]]:
    """The query of the address that the browser shows."""
    return {name: st.query_params.get_all(name) for name in st.query_params}


def _fill(field: str, value: Any) -> None:
    st.session_state[key(field)] = list(value) if isinstance(value, tuple) else value
