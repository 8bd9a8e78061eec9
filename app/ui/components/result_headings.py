"""What stands above the results: how many, their order, and ways on if there are few."""

from __future__ import annotations

import streamlit as st

from app.catalog.service import ProductList
from app.search.facets import Facets
from app.types import Query, SearchResult
from app.ui.formatting import escape_markdown, format_count, format_number
from app.ui.search_form import filter_bar, sorting
from app.ui.search_form.session_state import update
from app.ui.search_form.sorting import SortedPage
from app.ui.search_form.state import SearchFormState, count_changed
from app.ui.shortfall_text import shortfall_text
from app.ui.translation import N_, _, ngettext

NO_CLOSE_MATCH = N_("No close match: these products are only similar.")
NO_CLOSE_FILTERED = N_(
    "No close match among what passes your filters: these products are only similar."
)
NO_CLOSE_PHOTO = N_("No close match for the photo itself: these products are only similar.")
UNSURE = N_("Most similar first. Not among these? Draw a box around the product, or add words.")
UNSURE_BELOW = 0.5
"""Probability that the product is in the catalogue, below which ways on are named."""
WAYS_ON = N_("Draw a box around the product, add words, or try another photo.")
WHOLE_PHOTO = N_("Use the whole photo, add words, or try another photo.")


def heading(page: SortedPage, query: Query, total: str) -> str:
    """The heading of a page of a search, such as "Top 12 of 87 results"; `total` may be empty."""
    count = len(page.matches)
    if not count:
        return _("No more results") if page.first else _("No results")
    if page.first:
        text = (
            _("Results {first} to {last} of {total}") if total else _("Results {first} to {last}")
        )
        return text.format(first=page.first + 1, last=page.first + count, total=total)
    if not page.has_next:
        return ngettext("{count} result", "{count} results", count).format(count=count)
    text = _("Top {count} of {total} results") if total else _("Top {count} results")
    return text.format(count=count, total=total)


def draw_search(
    page: SortedPage,
    form: SearchFormState,
    query: Query,
    facets: Facets | None,
    *,
    close: bool | None,
) -> None:
    """Draw the heading of a search, the choice of an order, and ways on if little is found.

    `close` is whether the photo alone has a close match, None if that is not known.
    """
    total = _total(page, query, facets)
    _draw_line(heading(page, query, total), facets, searching=True)
    far = close is False and bool(page.matches)
    note, reason = _note(page, form, query, far=far), _reason(page, form, query)
    note = f"{note.removesuffix('.')}. {reason}" if reason else note
    _draw_note(note, clears=far and bool(query.filters))
    if not page.matches:
        _draw_ways_out(form, query, page.result)


def _note(page: SortedPage, form: SearchFormState, query: Query, *, far: bool) -> str:
    """One sentence about the results, and ways on where none is close (`far`)."""
    if not page.matches:
        return ""
    if far and query.filters:
        return _(NO_CLOSE_FILTERED)
    if far and query.words:
        return _(NO_CLOSE_PHOTO)
    if far:
        return f"{_(NO_CLOSE_MATCH)} {_(WHOLE_PHOTO if form.box is not None else WAYS_ON)}"
    if page.of is not None:
        text = _("The {count} best matches, sorted: {order}")
        return text.format(count=page.of, order=_(sorting.LABELS[form.sort]))
    # With words, products are in an order of both, and not in that of their similarity.
    by_picture = form.compares and not query.words
    sure = page.result.confidence
    if by_picture and form.box is None and sure is not None and sure < UNSURE_BELOW:
        return _(UNSURE)
    return _("Most similar first") if by_picture else _("Best match first")


def _reason(page: SortedPage, form: SearchFormState, query: Query) -> str:
    """Why a first page has fewer results than were asked for; empty if it has not."""
    if page.first or page.has_next or not 0 < len(page.matches) < form.k:
        return ""
    reason = shortfall_text(page.result.plan, query)
    return reason


def _draw_note(text: str, *, clears: bool = False) -> None:
    """Draw a line that takes the same room whatever it says, so that results do not jump; with
    `clears`, a button that takes the filters off is beside it."""
    with st.container(key="note", horizontal=clears, vertical_alignment="center"):
        st.caption(escape_markdown(text), width="content" if clears else "stretch")
        if clears:
            st.button(
                _("Clear filters"), key="clear-note", type="tertiary", on_click=filter_bar.clear
            )


def draw_list(listed: ProductList, form: SearchFormState, facets: Facets) -> None:
    """Draw the heading of a list of products without a query."""
    total = listed.total
    if not listed.products:
        _draw_line(_("No products"), None, searching=False)
        _draw_no_products(form)
        return
    first = (form.page - 1) * form.k + 1
    number = format_count(total)
    text = ngettext("{count} product", "{count} products", total.products).format(count=number)
    if form.page > 1:
        last = first + len(listed.products) - 1
        text = _("Products {first} to {last} of {total}")
        text = text.format(first=first, last=last, total=number)
    _draw_line(text[0].upper() + text[1:], facets, searching=False)
    start = not count_changed(form) and form.page == 1
    _draw_note(_("Add a photo, type words, or start with one of these products.") if start else "")


def _draw_line(text: str, facets: Facets | None, *, searching: bool) -> None:
    with st.container(
        key="heading", horizontal=True, horizontal_alignment="distribute",
        vertical_alignment="center",
    ):  # fmt: skip
        st.header(text, anchor=False)
        if facets is not None:
            sorting.draw(facets, searching=searching)


def _total(page: SortedPage, query: Query, facets: Facets | None) -> str:
    """How many products have the words, before duplicates are collapsed; empty where every product
    is more or less similar to a picture, or to the words as the model reads them."""
    if facets is None or page.of is not None or page.result.plan.words != "catalogue":
        return ""
    if query.picture is not None or query.sku is not None:
        return ""
    if facets.depth is not None:
        return _("more than {number}").format(number=format_number(facets.depth))
    number = format_number(facets.bounds.products)
    return _("about {number}").format(number=number) if query.fold else number


def _draw_ways_out(form: SearchFormState, query: Query, result: SearchResult) -> None:
    """Say why nothing was found, and offer to ask for more."""
    if form.page > 1:
        st.button(_("First page"), on_click=update, kwargs={"page": 1})
        return
    reason = shortfall_text(result.plan, query)
    st.info(escape_markdown(reason or _("No product was found.")))
    if form.words:
        st.caption(_("Check for typos, or use fewer words."))
    with st.container(horizontal=True):
        if count_changed(form):
            st.button(
                _("Clear filters"), key="clear-empty", type="primary", on_click=filter_bar.clear
            )
        if form.words:
            st.button(_("Search without the words"), on_click=update, kwargs={"words": ""})


def _draw_clear() -> None:
    st.button(_("Clear filters"), key="clear-empty", type="primary", on_click=filter_bar.clear)


def _draw_no_products(form: SearchFormState) -> None:
    if form.page > 1:
        st.button(_("First page"), on_click=update, kwargs={"page": 1})
        return
    st.info(_("No products match these filters."))
    _draw_clear()
