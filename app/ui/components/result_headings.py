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
    page: SortedPage, form: SearchFormState, query: Query, facets: Facets | None
) -> None:
    """Draw the heading of a search, the choice of an order, and ways on if little is found."""
    total = _total(page, query, facets)
    _draw_line(heading(page, query, total), facets, searching=True)
    _draw_note(_note(page, form))
    if not page.matches:
        _draw_ways_out(form, query, page.result)


def _note(page: SortedPage, form: SearchFormState) -> str:
    """One sentence about the results, and ways on where none is close."""
    if not page.matches:
        return ""
    if page.result.close is False:
        return f"{_(NO_CLOSE_MATCH)} {_(WHOLE_PHOTO if form.box is not None else WAYS_ON)}"
    if page.of is not None:
        text = _("The {count} best matches, sorted: {order}")
        return text.format(count=page.of, order=_(sorting.LABELS[form.sort]))
    return _("Most similar first") if form.compares else _("Best match first")


def _draw_note(text: str) -> None:
    """Draw a line that takes the same room whatever it says, so that results do not jump."""
    with st.container(key="note"):
        st.caption(escape_markdown(text))


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
