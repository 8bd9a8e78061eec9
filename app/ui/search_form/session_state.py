"""The one source of what is asked: the form in the session, mirrored in the URL.

Widgets do not hold it. Each is drawn with the value of its field, and a change of it is written to
the form. A field that is changed otherwise (by Back, "Clear filters", another search) gets a widget
with another key: a browser goes on sending the value of a widget that it did not redraw, for
instance in a closed popover, and that of an unknown widget is ignored.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from app.ui.search_form.state import FIELDS, REFERENCES, SearchFormState, number_text
from app.ui.search_form.url_state import from_url, to_url
from app.ui.shared import uninterrupted
from app.ui.translation import language, url_parameters

FORM = "search_form"
URL_ERRORS = "search_url_errors"
GENERATIONS = "search_generations"
"""Session key of how often the widgets of each field were replaced."""

VARIANTS = "search_variants"
"""Session key of what each widget was drawn with, such as the labels of its options."""


def restore() -> None:
    """Take the form from the URL in a new session, and when the user went back or forward.

    Otherwise the URL that a browser sends is not looked at: it may be older than the form, because
    the browser learns the new one only while the script runs.
    """
    if FORM not in st.session_state or _is_history_navigation():
        form, st.session_state[URL_ERRORS] = from_url(_url_parameters())
        replace_form(form)


def current() -> SearchFormState:
    """The form."""
    form: SearchFormState = st.session_state[FORM]
    return form


@uninterrupted
def replace_form(form: SearchFormState) -> None:
    """Replace the form, and the widgets of the fields that differ."""
    known = st.session_state.get(FORM)
    for field in FIELDS:
        if known is not None and getattr(known, field) != getattr(form, field):
            renew(field)
    st.session_state[FORM] = form


@uninterrupted
def update(**fields: Any) -> None:
    """Change some fields; the first page follows, unless `page` is given. A callback."""
    replace_form(replace(current(), **({"page": 1} | fields)))


@uninterrupted
def refer_to(**reference: Any) -> None:
    """Search with another picture or product: `photo`, `link` or `sku`. A callback."""
    update(**(REFERENCES | reference))


@uninterrupted
def begin_with(**reference: Any) -> None:
    """Search with a new picture: `photo` or `link`. A callback.

    Filters stay, each with a button that takes it off. Words that were typed for another picture or
    product do not: they would go on ranking unseen. Words that were asked alone stay.
    """
    words = {"words": "", "without": ""} if current().compares else {}
    refer_to(**reference, **words)


def bound(field: str, *, variant: Hashable = None, name: str | None = None) -> dict[str, Any]:
    """The arguments `key`, `on_change` and `args` of the widget of a field.

    `variant` is what the widget is drawn with: another one gets a widget of its own, and so does
    another language, because Streamlit identifies a choice by its label. `name` is for a widget
    that holds a part of the field.
    """
    name = name or field
    variant = (variant, language())
    variants: dict[str, Hashable] = st.session_state.setdefault(VARIANTS, {})
    if variants.get(name, variant) != variant:
        renew(name)
    variants[name] = variant
    key = _key(field, name)
    return {"key": key, "on_change": _take, "args": (field, key)}


def is_current(key: str, field: str, name: str | None = None) -> bool:
    """Whether the widget with this key is still the one of its field, or of a part of it.

    A run that another change interrupts draws no widgets. The next one gets the values of the
    former widgets again, and to Streamlit they are changes: after "Clear filters" and words typed
    at once, the filters would come back.
    """
    return key == _key(field, name or field)


def _key(field: str, name: str) -> str:
    generation = _generations().get(field, 0) + _generations().get(name, 0) * (name != field)
    return f"search_{name}_{generation}" if generation else f"search_{name}"


def renew(name: str) -> None:
    """Let the next widget of a field have another key."""
    _generations()[name] = _generations().get(name, 0) + 1


def save() -> None:
    """Write the form to the URL."""
    parameters = to_url(current()) | url_parameters()
    if parameters != _url_parameters():
        st.query_params.from_dict(parameters)


def take_url_errors() -> tuple[str, ...]:
    """The errors of the URL that the page was opened with, one sentence each; returned once."""
    errors: tuple[str, ...] = st.session_state.pop(URL_ERRORS, ())
    return errors


@uninterrupted
def _take(field: str, key: str) -> None:
    """Write the value of a widget to its field, which keeps the widget."""
    if not is_current(key, field):
        return
    value = st.session_state[key]
    if isinstance(value, list):
        value = tuple(value)
    elif isinstance(value, str):
        value = value.strip()
    elif isinstance(value, float):
        value = float(number_text(value))  # as the URL has it
    put(**{field: value})


@uninterrupted
def put(**fields: Any) -> None:
    """Change some fields and keep their widgets, which have these values already."""
    form = replace(current(), **fields)
    if form != current():
        st.session_state[FORM] = form
        update()


def _generations() -> dict[str, int]:
    generations: dict[str, int] = st.session_state.setdefault(GENERATIONS, {})
    return generations


def _is_history_navigation() -> bool:
    context = get_script_run_ctx()
    return context is not None and context.is_history_navigation


def _url_parameters() -> dict[str, list[str]]:
    """The query parameters of the URL in the browser."""
    return {name: st.query_params.get_all(name) for name in st.query_params}
