"""The filter bar: facets with the counts of the present results, ranges, options, choices."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, get_args

import streamlit as st

from app.errors import LookalikeError
from app.search.facets import COLUMNS, Facets, FacetValues
from app.search.vector_cache import VectorCache
from app.types import Filters, Query
from app.ui.engine_texts import column_title
from app.ui.formatting import escape_markdown, format_measure, format_number
from app.ui.search_form.session_state import bound, current, is_current, put, update
from app.ui.search_form.state import (
    DEFAULT,
    PAGE_SIZES,
    TextReader,
    cleared,
    count_changed,
    range_text,
)
from app.ui.shared import services, uninterrupted
from app.ui.translation import N_, _

FACETS = "search_facets"
"""Session key of what the facets on display were read for, the time (s) of that, and them."""

MAX_AGE_S = 60
"""Seconds after which the facets are read from the catalogue again."""

MAX_PILLS = 12
"""Values of a facet that are all shown at once; of more, some can be searched for."""

READER_LABELS = {"automatic": N_("Automatic"), "model": N_("Model"), "catalogue": N_("Catalogue")}

OPTIONS = ("min_similarity", "near_match", "fold", "k", "weight", "reader", "without")
"""Fields in the box of options."""


def get_facets() -> Facets:
    """The facets of the whole catalogue; raises what `FacetService.read` raises."""
    return _read(services().settings.database_url)


def facets_of(asked: Query | Filters, vectors: VectorCache) -> Facets:
    """The facets of what a query finds, or of what passes filters, read again when it changes or
    after MAX_AGE_S; those of the catalogue for a query that cannot be answered, which the search
    reports."""
    if isinstance(asked, Filters) and not asked:
        return _read_all(services().settings.database_url)
    if isinstance(asked, Query):
        asked = replace(asked, k=1)
    known, read_at, facets = st.session_state.get(FACETS, (None, 0.0, None))
    if facets is None or known != asked or time.monotonic() - read_at > MAX_AGE_S:
        try:
            facets = _facets_of(asked, vectors)
        except LookalikeError:
            return get_facets()
        st.session_state[FACETS] = (asked, time.monotonic(), facets)
    result: Facets = facets
    return result


def _facets_of(asked: Query | Filters, vectors: VectorCache) -> Facets:
    if isinstance(asked, Query):
        return services().facets.of_query(asked, vectors)
    with services().admission.admitted():
        return services().facets.of_filters(asked)


@st.cache_data(ttl=MAX_AGE_S, show_spinner=False)
def _read(database_url: str | None) -> Facets:
    """Read the facets; the URL is an argument because it is the key of the cache."""
    return services().facets.read()


@st.cache_data(ttl=MAX_AGE_S, show_spinner=False)
def _read_all(database_url: str | None) -> Facets:
    """The facets of products without a query, attributes included; as `_read`."""
    with services().admission.admitted():
        return services().facets.of_filters(Filters())


def draw(facets: Facets, *, searching: bool, reads_words: bool) -> None:
    """Draw the filters as a bar, in one line where there is room, and below it what is chosen.

    `searching` is whether there is a query, and `reads_words` whether its model reads words.
    """
    with st.container(key="narrow", horizontal=True, gap="small"):
        for column in COLUMNS:
            _column_filter(column, facets)
        _attribute_filters(facets)
        _range_filter("year", facets.bounds.first_year, facets.bounds.last_year)
        _range_filter("price", facets.bounds.lowest, facets.bounds.highest)
        _options(searching=searching, reads_words=reads_words)
    _draw_chosen()


def clear() -> None:
    """Clear the filters; a callback."""
    update(**cleared())


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A filter that is on: its text, and the fields that take it off."""

    text: str
    without: Mapping[str, Any]


def _draw_chosen() -> None:
    chosen = list(_chosen())
    if not chosen:
        return
    with st.container(key="chosen", horizontal=True, gap="small"):
        for place, each in enumerate(chosen):
            st.button(
                _("*Remove filter* {name}").format(name=escape_markdown(each.text)),
                key=f"chosen-{place}", icon=":material/close:", icon_position="right",
                on_click=update, kwargs=dict(each.without),
            )  # fmt: skip
        st.button(_("Clear filters"), key="clear", type="tertiary", on_click=clear)


def _chosen() -> Iterator[_Chosen]:
    form = current()
    for field in (*COLUMNS, "attributes"):
        values = getattr(form, field)
        for value in values:
            rest = tuple(each for each in values if each != value)
            name, _sign, text = (
                value.partition("=") if field == "attributes" else (field, "", value)
            )
            yield _Chosen(f"{column_title(name)}: {text}", {field: rest})
    for name in ("year", "price"):
        ends = (f"{name}_from", f"{name}_to")
        if text := _range_label(*(getattr(form, end) for end in ends)):
            yield _Chosen(f"{column_title(name)}: {text}", cleared(ends))
    if form.min_similarity is not None:
        text = _("Similarity from {number}").format(number=format_measure(form.min_similarity))
        yield _Chosen(text, cleared(["min_similarity"]))
    if form.near_match is not None:
        yield _Chosen(_("Near-identical images hidden"), cleared(["near_match"]))
    if form.fold != DEFAULT.fold:
        yield _Chosen(_("Duplicates shown"), cleared(["fold"]))


def _range_label(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return ""
    if low is None:
        return _("up to {high}").format(high=format_measure(high or 0))
    if high is None:
        return _("from {low}").format(low=format_measure(low))
    if low == high:
        return format_measure(low)
    return _("{low} to {high}").format(low=format_measure(low), high=format_measure(high))


def _column_filter(column: str, facets: Facets) -> None:
    values = facets.values.get(column, FacetValues())
    chosen = getattr(current(), column)
    if values.counts or chosen:
        _values_filter(column, column, chosen, values)


def _attribute_filters(facets: Facets) -> None:
    """A filter for each facet that is an attribute: `attributes` holds `name=value`."""
    chosen: dict[str, tuple[str, ...]] = {}
    for condition in current().attributes:
        name, _sign, value = condition.partition("=")
        chosen[name] = (*chosen.get(name, ()), value)
    names = [name for name in facets.values if name not in COLUMNS]
    for name in dict.fromkeys([*names, *chosen]):
        values = facets.values.get(name, FacetValues())
        if values.counts or name in chosen:
            _values_filter("attributes", name, chosen.get(name, ()), values)


def _values_filter(field: str, name: str, chosen: tuple[str, ...], values: FacetValues) -> None:
    """Values to choose from, with their counts; further ones that are not listed may be typed."""
    counts = dict(values.counts)
    options = [*counts, *(value for value in chosen if value not in counts)]
    labels = {value: _with_count(value, counts) for value in options}
    # Streamlit identifies a choice by its label: other labels are another widget.
    arguments = bound(field, name=name, variant=tuple(labels.values()))
    if field == "attributes":
        arguments |= {"on_change": _take_attribute, "args": (name, arguments["key"])}
    arguments |= {"default": list(chosen), "label_visibility": "collapsed"}
    with st.popover(_label(name, len(chosen)), key=f"search_{name}_box"):
        if len(options) <= MAX_PILLS and not values.left_out:
            st.pills(
                column_title(name), options, selection_mode="multi",
                format_func=lambda value: escape_markdown(labels[value]), **arguments,
            )  # fmt: skip
        else:
            st.multiselect(
                column_title(name), options, placeholder=_("Any"), select_all=False,
                accept_new_options=bool(values.left_out),
                format_func=lambda value: labels.get(value, value), **arguments,
            )  # fmt: skip
        if values.left_out:
            text = _("Not listed: {count} rarer values. Type one to add it.")
            st.caption(text.format(count=format_number(values.left_out)))


@uninterrupted
def _take_attribute(name: str, key: str) -> None:
    """Write the values chosen of one attribute; a callback."""
    if not is_current(key, "attributes", name):
        return
    others = [each for each in current().attributes if each.partition("=")[0] != name]
    put(attributes=(*others, *(f"{name}={value}" for value in st.session_state[key])))


def _with_count(value: str, counts: Mapping[str, int]) -> str:
    """A value with its count, if known; rare and unknown values have none."""
    return f"{value} ({format_number(counts[value])})" if value in counts else value


def _range_filter(name: str, low: Decimal | int | None, high: Decimal | int | None) -> None:
    """Two optional numbers; empty inputs show the bounds of the results."""
    form = current()
    ends = ("from", "to")
    chosen = range_text(*(getattr(form, f"{name}_{end}") for end in ends))
    if (low is None or low == high) and not chosen:
        return
    with st.popover(_label(name, int(bool(chosen))), key=f"search_{name}_box"):
        for end, bound_ in zip(ends, (low, high), strict=True):
            field = f"{name}_{end}"
            st.number_input(
                (_("{name} from") if end == "from" else _("{name} to")).format(
                    name=column_title(name)
                ),
                value=getattr(form, field),
                step=1 if name == "year" else 1.0,
                placeholder="" if bound_ is None else format_measure(float(bound_)),
                format="%d" if name == "year" else "%.2f", **bound(field),
            )  # fmt: skip


def _options(*, searching: bool, reads_words: bool) -> None:
    """What is changed rarely; only what makes a difference for this query and model."""
    form = current()
    pictured = form.compares
    with st.popover(_label("options", count_changed(form, OPTIONS)), key="search_options_box"):
        if pictured:
            st.number_input(
                _("Minimum similarity"), -1.0, 1.0, form.min_similarity, 0.05, format="%.2f",
                placeholder=_("none"),
                help=_("1 is the same image. Less similar products are hidden."),
                **bound("min_similarity"),
            )  # fmt: skip
        if form.words and pictured:
            st.slider(_("Weight of the words"), 0.0, 1.0, form.weight, 0.05, **bound("weight"))
        if searching and reads_words:
            _text_options()
        if searching:
            st.number_input(
                _("Hide near-identical images"), 0.0, 2.0, form.near_match, 0.01, format="%.2f",
                placeholder=_("off"),
                help=_("Images up to this distance (1 minus similarity) from a better result are "
                       "hidden; 0.05 is a usual value."),
                **bound("near_match"),
            )  # fmt: skip
            st.toggle(
                _("Collapse duplicates"), form.fold,
                help=_("A product listed for several years, in several sizes or with a typo is "
                       "shown once."), **bound("fold"),
            )  # fmt: skip
        st.segmented_control(
            _("Results per page"), PAGE_SIZES, required=True, default=form.k, **bound("k")
        )


def _text_options() -> None:
    form = current()
    if form.words:
        st.segmented_control(
            _("Match text using"), get_args(TextReader), required=True, default=form.reader,
            format_func=lambda reader: _(READER_LABELS[reader]), width="stretch",
            help=_("The model compares your words with pictures; the catalogue looks them up in "
                   "titles, brands, categories and colours. Automatic does both."),
            **bound("reader"),
        )  # fmt: skip
    st.text_input(_("Exclude"), form.without, max_chars=1000, **bound("without"))


def _label(name: str, chosen: int) -> str:
    """The label of a popover: its name, and how much is chosen in it."""
    title = escape_markdown(column_title(name))
    return f"{title} ({chosen})" if chosen else title
