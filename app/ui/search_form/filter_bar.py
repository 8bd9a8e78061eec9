"""The filter part of the search form: facets, ranges, similarity bounds and page size.

Values are offered with the number of results that have them, under the other filters.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

import streamlit as st

from app.errors import LookalikeError
from app.search.facets import COLUMNS, Facets, FacetValues
from app.search.vector_cache import VectorCache
from app.types import Query
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
"""Session key of the query whose facets are on display, the time (s) they were read, and them."""

LABELS = "search_facet_labels"
"""Session key of the labels of the values on display, by field."""

MAX_AGE_S = 60
"""Seconds after which the facets are read from the catalogue again."""


def get_facets() -> Facets:
    """The facets of the whole catalogue; raises what `FacetService.read` raises."""
    return _read(services().settings.database_url)


def facets_of(query: Query, vectors: VectorCache) -> Facets:
    """The facets of what a query finds, read again when it changes or after MAX_AGE_S; those of the
    catalogue for a query that cannot be answered, which the search reports."""
    query = replace(query, k=1)
    known, read_at, facets = st.session_state.get(FACETS, (None, 0.0, None))
    if facets is None or known != query or time.monotonic() - read_at > MAX_AGE_S:
        try:
            facets = services().facets.of_query(query, vectors)
        except LookalikeError:
            return get_facets()
        st.session_state[FACETS] = (query, time.monotonic(), facets)
    result: Facets = facets
    return result


@st.cache_data(ttl=MAX_AGE_S, show_spinner=False)
def _read(database_url: str | None) -> Facets:
    """Read the facets; the URL is an argument because it is the key of the cache."""
    return services().facets.read()


def draw(facets: Facets) -> None:
    """Draw the filters as a bar, in one line where there is room."""
    with st.container(key="narrow", horizontal=True, gap="small"):
        for column in COLUMNS:
            _column_filter(column, facets)
        _attribute_filter(facets)
        _range_filter("year", facets.bounds.first_year, facets.bounds.last_year)
        _range_filter("price", facets.bounds.lowest, facets.bounds.highest)
        _more_filters()
        if count_changed(current()):
            st.button("Clear filters", type="tertiary", on_click=_clear)


def _clear() -> None:
    update(**{field: getattr(DEFAULT, field) for field in FILTER_FIELDS})


def _column_filter(column: str, facets: Facets) -> None:
    values = facets.values.get(column, FacetValues())
    if values.counts or widget_value(column):
        _values_filter(column, dict(values.counts), values.left_out)


def _attribute_filter(facets: Facets) -> None:
    """The values of all facets that have no filter of their own, as `name=value`."""
    counts = {
        f"{name}={value}": count
        for name, values in facets.values.items()
        if name not in COLUMNS
        for value, count in values.counts
    }
    if counts or widget_value("attributes"):
        _values_filter("attributes", counts)


def _values_filter(field: str, counts: Mapping[str, int], left_out: int = 0) -> None:
    """A set of values to choose from, with their counts; `left_out` further ones may be typed."""
    chosen: list[str] = widget_value(field)
    options = [*counts, *(value for value in chosen if value not in counts)]
    _keep_chosen(field, [_with_count(value, counts) for value in options])
    with st.popover(_label(field, len(chosen) or ""), key=f"search_{field}_box"):
        st.multiselect(
            field.capitalize(), options,
            key=widget_key(field), format_func=lambda value: _with_count(value, counts),
            placeholder="Any", select_all=False, accept_new_options=bool(left_out),
        )  # fmt: skip
        if left_out:
            st.caption(f"Not listed, being rarer: {left_out:,}. Type one to add it.")


def _keep_chosen(field: str, labels: Sequence[str]) -> None:
    """Set the widget to the values it has, if labels changed.

    Streamlit identifies a choice by its label, which includes the count: the browser would send the
    old label, and the choice would be lost.
    """
    shown: dict[str, Sequence[str]] = st.session_state.setdefault(LABELS, {})
    if shown.get(field) not in (None, labels) and widget_value(field):
        st.session_state[widget_key(field)] = list(widget_value(field))
    shown[field] = labels


def _with_count(value: str, counts: Mapping[str, int]) -> str:
    """A value with its count, if known; rare and unknown values have none."""
    return f"{value} ({counts[value]:,})" if value in counts else value


def _range_filter(name: str, low: Decimal | int | None, high: Decimal | int | None) -> None:
    """Two optional numbers; empty inputs show the bounds of the results."""
    ends = ("from", "to")
    chosen = range_text(*(widget_value(f"{name}_{end}") for end in ends))
    if low is None and high is None and not chosen:
        return
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
