"""The order of the results: the choice, and the page of a search that is sorted otherwise.

A search orders by similarity. Another order is that of its first SORTED results, because every
product is similar to some degree and the cheapest of all would have nothing to do with the query.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import get_args

import streamlit as st

from app.catalog.service import ListOrder
from app.search.facets import Facets
from app.types import Match, Product, SearchResult
from app.ui.search_form.session_state import bound, current
from app.ui.search_form.state import SearchFormState, Sorting
from app.ui.translation import N_, _

SORTED = 96
"""Results of a search that are sorted by something else than similarity."""

LABELS: dict[Sorting, str] = {
    "best": N_("Best match"),
    "newest": N_("Newest"),
    "cheapest": N_("Price: low to high"),
    "dearest": N_("Price: high to low"),
}


@dataclass(frozen=True, slots=True)
class SortedPage:
    """The matches of one page, how many come before it, and whether another page follows.

    `of` is how many results were sorted; None where a search ordered them.
    """

    matches: tuple[Match, ...]
    first: int
    has_next: bool
    result: SearchResult
    of: int | None = None


def draw(facets: Facets, *, searching: bool) -> None:
    """Draw the choice of an order; by price only where products have one."""
    priced = facets.bounds.lowest is not None
    chosen = current().sort
    options = [each for each in get_args(Sorting) if _offered(each, searching, priced, chosen)]
    if len(options) > 1:
        st.selectbox(
            _("Sort by"), options, index=options.index(chosen) if chosen in options else 0,
            format_func=lambda sort: _(LABELS[sort]), label_visibility="collapsed", width=180,
            **bound("sort", variant=tuple(options)),
        )  # fmt: skip


def _offered(each: Sorting, searching: bool, priced: bool, chosen: Sorting) -> bool:
    if each == "best":
        return searching
    return each == "newest" or priced or each == chosen


def list_order(form: SearchFormState) -> ListOrder:
    """The order of a list of products without a query."""
    return "newest" if form.sort == "best" else form.sort


def results_needed(form: SearchFormState) -> int:
    """How many results the search of one page returns."""
    return form.k if form.sort == "best" else SORTED


def search_page(form: SearchFormState) -> int:
    """The page of the search that has the results of the form's page."""
    return form.page if form.sort == "best" else 1


def number_of(result: SearchResult, form: SearchFormState, found: int) -> int:
    """The page of the form, or the last one if there are fewer; `found` is that of the search."""
    if form.sort == "best":
        return found
    return min(form.page, max(1, math.ceil(len(result.matches) / form.k)))


def page_of(result: SearchResult, form: SearchFormState, number: int) -> SortedPage:
    """The page of a result: itself, or a part of it in the order of the form."""
    first = (number - 1) * form.k
    if form.sort == "best":
        has_next = len(result.matches) == form.k or result.gave_up
        return SortedPage(result.matches, first, has_next, result)
    matches = sorted(result.matches, key=lambda match: _key(match.product, form.sort))
    if form.sort == "newest":
        matches = sorted(result.matches, key=lambda match: -match.product_id)
    shown = tuple(matches[first : first + form.k])
    return SortedPage(shown, first, len(matches) > first + form.k, result, len(matches))


def _key(product: Product, sort: Sorting) -> tuple[bool, Decimal]:
    price = product.price or Decimal(0)
    return product.price is None, -price if sort == "dearest" else price
