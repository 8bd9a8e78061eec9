"""Narrowing: which of the products that look alike are shown, and how many at a time."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import streamlit as st

from app.search.facets import COLUMNS, Facets
from app.ui.search_form.session_state import change, key, now, said
from app.ui.search_form.state import DEFAULT, NARROWING, SIZES, narrowed, number, span
from app.ui.shared import services

FACETS = "search_facets"
FRESH_S = 60
"""Values and counts are read from the catalogue again after this time."""


def facets() -> Facets:
    """The values and bounds to choose from; raises what `FacetService.read` does.

    While something is chosen they stay as they were: Streamlit knows a choice by what it was
    called, count included, and would forget it with the next count.
    """
    held: Facets | None = st.session_state.get(FACETS)
    if held is None or not any(said(column) for column in COLUMNS):
        held = st.session_state[FACETS] = _read(services().settings.database_url)
    return held


@st.cache_data(ttl=FRESH_S, show_spinner=False)
def _read(database: str | None) -> Facets:
    """`database` is what tells one catalogue from another."""
    return services().facets.read()


def narrow(known: Facets) -> None:
    """Draw the filters as a bar that takes one line where there is room."""
    with st.container(key="narrow", horizontal=True, gap="small"):
        for column in COLUMNS:
            _values(column, known)
        _range("year", known.bounds.first_year, known.bounds.last_year)
        _range("price", known.bounds.lowest, known.bounds.highest)
        _more()
        if narrowed(now()):
            st.button("Clear filters", type="tertiary", on_click=_clear)


def _clear() -> None:
    change(**{field: getattr(DEFAULT, field) for field in NARROWING})


def _values(column: str, known: Facets) -> None:
    chosen: list[str] = said(column)
    counts = dict(known.values[column].counts)
    left_out = known.values[column].left_out
    with st.popover(_label(column, len(chosen) or ""), key=f"search_{column}_box"):
        st.multiselect(
            column.capitalize(), [*counts, *(value for value in chosen if value not in counts)],
            key=key(column), format_func=lambda value: _counted(value, counts),
            placeholder="Any", select_all=False, accept_new_options=bool(left_out),
        )  # fmt: skip
        if left_out:
            st.caption(f"Not listed, being rarer: {left_out:,}. Type one to add it.")


def _counted(value: str, counts: Mapping[str, int]) -> str:
    """A value with its count, if that is known: it is not of rare ones, nor of those nobody has."""
    return f"{value} ({counts[value]})" if value in counts else value


def _range(name: str, low: Decimal | int | None, high: Decimal | int | None) -> None:
    """Two numbers, either left out; empty ones show what there is in the catalogue."""
    ends = ("from", "to")
    set_ = span(*(said(f"{name}_{end}") for end in ends))
    with st.popover(_label(name, set_), key=f"search_{name}_box"):
        for end, bound in zip(ends, (low, high), strict=True):
            st.number_input(
                f"{name.capitalize()} {end}", value=None, step=1 if name == "year" else 1.0,
                placeholder="" if bound is None else number(float(bound)),
                format="%d" if name == "year" else "%.2f", key=key(f"{name}_{end}"),
            )  # fmt: skip


def _more() -> None:
    set_ = narrowed(now(), ("min_similarity", "near_match", "fold"))
    with st.popover(_label("more", set_ or ""), key="search_more_box"):
        st.number_input(
            "Minimum similarity", -1.0, 1.0, None, 0.05, format="%.2f",
            key=key("min_similarity"), placeholder="none",
            help="1 is the same picture. What is less similar is not shown.",
        )  # fmt: skip
        st.number_input(
            "Leave out what looks the same, up to a distance of", 0.0, 2.0, None, 0.01,
            format="%.2f", key=key("near_match"), placeholder="off",
            help="A distance is 1 minus a similarity, here of two products in the answer; the "
            "better match stays.",
        )  # fmt: skip
        st.toggle(
            "Collapse duplicates", key=key("fold"),
            help="A product that is there for several years, in several sizes or with a typo comes "
            "once.",
        )  # fmt: skip
        st.segmented_control("Products on a page", SIZES, required=True, key=key("k"))


def _label(name: str, set_: object) -> str:
    """What a box is called: its name, and what is set in it."""
    return f"{name.capitalize()} ({set_})" if set_ else name.capitalize()
