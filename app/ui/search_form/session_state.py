"""The search form in Streamlit's session: keeps form state, widgets and URL in step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from app.ui.search_form.state import FIELDS, SearchFormState, from_values
from app.ui.search_form.url_state import from_url, to_url

FORM = "search_form"
URL = "search_url"
URL_ERRORS = "search_url_errors"


def widget_key(field: str) -> str:
    """The session key of the widget of a field."""
    return f"search_{field}"


def widget_value(field: str) -> Any:
    """The value of the widget of a field, or its last value if the widget is not drawn."""
    if widget_key(field) in st.session_state:
        return st.session_state[widget_key(field)]
    return getattr(st.session_state[FORM], field)


def restore() -> None:
    """Set the widgets before they are drawn: from the URL if it changed, else from the form.

    Streamlit forgets the values of widgets that were not drawn in the last run, such as those of
    another page. The form keeps them.
    """
    state = st.session_state
    parameters = _url_parameters()
    from_another_page = FORM in state and widget_key("by") not in state
    if FORM not in state or (parameters != state[URL] and not from_another_page):
        form, state[URL_ERRORS] = from_url(parameters)
        replace_form(form)
    for field in FIELDS:
        if widget_key(field) not in state:
            _set_widget(field, getattr(state[FORM], field))


def replace_form(form: SearchFormState) -> None:
    """Replace all values of form and widgets; before the widgets are drawn, or in a callback."""
    st.session_state[FORM] = form
    for field in FIELDS:
        _set_widget(field, getattr(form, field))


def update(**fields: Any) -> None:
    """Change some fields of the form, as `replace_form` does with all."""
    replace_form(replace(current(), **fields))


def current() -> SearchFormState:
    """The form as the widgets have it now."""
    return from_values({field: widget_value(field) for field in FIELDS})


def save() -> SearchFormState:
    """Store the form in the session and in the URL, after all widgets are drawn; returns it."""
    form = current()
    parameters = to_url(form)
    st.session_state[FORM], st.session_state[URL] = form, parameters
    if parameters != _url_parameters():
        st.query_params.from_dict(parameters)
    return form


def take_url_errors() -> tuple[str, ...]:
    """The errors of the URL that the page was opened with, one sentence each; returned once."""
    errors: tuple[str, ...] = st.session_state.pop(URL_ERRORS, ())
    return errors


def _url_parameters() -> dict[str, list[str]]:
    """The query parameters of the URL in the browser."""
    return {name: st.query_params.get_all(name) for name in st.query_params}


def _set_widget(field: str, value: Any) -> None:
    st.session_state[widget_key(field)] = list(value) if isinstance(value, tuple) else value
