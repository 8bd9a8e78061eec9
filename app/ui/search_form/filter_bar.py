"""The filter part of the search form: facets, ranges, similarity bounds and page size."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import streamlit as st

from app.search.facets import COLUMNS, Facets
from app.ui.search_form.session_state import current, update, widget_key, widget_value
from app.ui.search_form.state import (
    DEFAULT,
    FILTER_FIELDS,
    PAGE_SIZES,
    count_changed,
    number_text,
    range_text,
)
from app.ui.shared import services

FACETS = "search_facets"
"""Session key of the facets on display."""

MAX_AGE_S = 60
"""Seconds after which the facets are read from the catalogue again."""


def get_facets() -> Facets:
    """The facets to choose from; raises what `FacetService.read` raises.

    They do not change while a value is chosen: Streamlit identifies a choice by its label, which
    includes the count, and would lose it when the count changes.
    """
    facets: Facets | None = st.session_state.get(FACETS)
    if facets is None or not any(widget_value(column) for column in COLUMNS):
        facets = st.session_state[FACETS] = _read(services().settings.database_url)
    return facets


@st.cache_data(ttl=MAX_AGE_S, show_spinner=False)
def _read(database_url: str | None) -> Facets:
    """Read the facets; the URL is an argument because it is the key of the cache."""
    return services().facets.read()


def draw(facets: Facets) -> None:
    """Draw the filters as a bar, in one line where there is room."""
    with st.container(key="narrow", horizontal=True, gap="small"):
        for column in COLUMNS:
            _column_filter(column, facets)
        _range_filter("year", facets.bounds.first_year, facets.bounds.last_year)
        _range_filter("price", facets.bounds.lowest, facets.bounds.highest)
        _more_filters()
        if count_changed(current()):
            st.button("Clear filters", type="tertiary", on_click=_clear)


def _clear() -> None:
    update(**{field: getattr(DEFAULT, field) for field in FILTER_FIELDS})


def _column_filter(column: str, facets: Facets) -> None:
    chosen: list[str] = widget_value(column)
    counts = dict(facets.values[column].counts)
    left_out = facets.values[column].left_out
    with st.popover(_label(column, len(chosen) or ""), key=f"search_{column}_box"):
        st.multiselect(
            column.capitalize(), [*counts, *(value for value in chosen if value not in counts)],
            key=widget_key(column), format_func=lambda value: _with_count(value, counts),
            placeholder="Any", select_all=False, accept_new_options=bool(left_out),
        )  # fmt: skip
        if left_out:
            st.caption(f"Not listed, being rarer: {left_out:,}. Type one to add it.")


def _with_count(value: str, counts: Mapping[str, int]) -> str:
    """A value with its count, if known; rare and unknown values have none."""
    return f"{value} ({counts[value]})" if value in counts else value


def _range_filter(name: str, low: Decimal | int | None, high: Decimal | int | None) -> None:
    """Two optional numbers; empty inputs show the bounds of the catalogue."""
    ends = ("from", "to")
    chosen = range_text(*(widget_value(f"{name}_{end}") for end in ends))
    with st.popover(_label(name, chosen), key=f"search_{name}_box"):
        for end, bound in zip(ends, (low, high), strict=True):
            st.number_input(
                f"{name.capitalize()} {end}", value=None, step=1 if name == "year" else 1.0,
                placeholder="" if bound is None else number_text(float(bound)),
                format="%d" if name == "year" else "%.2f", key=widget_key(f"{name}_{end}"),
            )  # fmt: skip


def _more_filters() -> None:
    changed = count_changed(current(), ("min_similarity", "near_match", "fold"))
    with st.popover(_label("more", changed or ""), key="search_more_box"):
        st.number_input(
            "Minimum similarity", -1.0, 1.0, None, 0.05, format="%.2f",
            key=widget_key("min_similarity"), placeholder="none",
            help="1 is the same picture. What is less similar is not shown.",
        )  # fmt: skip
        st.number_input(
            "Leave out what looks the same, up to a distance of", 0.0, 2.0, None, 0.01,
            format="%.2f", key=widget_key("near_match"), placeholder="off",
            help="A distance is 1 minus a similarity, here of two products in the answer; the "
            "better match stays.",
        )  # fmt: skip
        st.toggle(
            "Collapse duplicates", key=widget_key("fold"),
            help="A product that is there for several years, in several sizes or with a typo comes "
            "once.",
        )  # fmt: skip
        st.segmented_control("Products on a page", PAGE_SIZES, required=True, key=widget_key("k"))


def _label(name: str, chosen: object) -> str:
    """The label of a popover: its name, and what is chosen in it."""
    return f"{name.capitalize()} ({chosen})" if chosen else name.capitalize()
