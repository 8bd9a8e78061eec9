"""The search page: ask on the left, the products that look like it on the right."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from app.errors import Busy, LookalikeError
from app.search.facets import Facets
from app.search.vector_cache import VectorCache
from app.types import Query, SearchResult
from app.ui.components import answer_footer, product_dialog, result_pages
from app.ui.components.product_cards import Card, CardActions, grid
from app.ui.components.result_pages import Pages, turn
from app.ui.css import STYLE
from app.ui.search_form import query_form, session_state
from app.ui.search_form.filter_bar import facets, narrow
from app.ui.search_form.picture_inputs import UploadedPictures
from app.ui.search_form.state import SearchFormState, filters
from app.ui.shared import plain, sentences, services

PAGES = "search_pages"
MEMORY = "search_memory"
DOING = CardActions(query_form.more_like, product_dialog.ask_for)


def show() -> None:
    """Draw the page."""
    st.html(STYLE)
    st.title("Find products by picture", anchor=False)
    with sentences("the search page"):
        session_state.arrive()
        left, right = st.columns([1, 3], gap="large")
        with left, st.container(key="ask"):
            asked = query_form.ask()
        with right:
            _answer(asked)


def _answer(asked: UploadedPictures) -> None:
    for complaint in session_state.complaints():
        st.warning(plain(complaint))
    known = _facets()
    wanted = query_form.query(session_state.now(), asked)
    result = None
    if wanted is None:
        session_state.settle()
        if isinstance(known, Facets) or not asked.wrong:  # one sentence about one trouble
            _welcome(known)
    else:
        if isinstance(known, Facets):
            narrow(known)
        with sentences("a search"):
            result = _found(_narrowed(wanted, session_state.settle()))
            if result is not None:
                _results(result)
    product_dialog.show(result, query_form.more_like)


def _facets() -> Facets | str:
    """What the catalogue can be narrowed by, or the sentence that says why it cannot be read."""
    try:
        return facets()
    except LookalikeError as exc:
        return str(exc)


def _welcome(known: Facets | str) -> None:
    """Before anything is asked: what to do, and products to begin with."""
    if isinstance(known, str):
        st.error(plain(known))
    elif not known.bounds.products:
        st.info("The catalogue is empty. Load products with `lookalike ingest`, then ask.")
    else:
        st.markdown(
            f"Drop a photo and see which of {known.bounds.products:,} products look like it, ask "
            "with words, or both."
        )
        st.header("No photo at hand? Begin with a product", anchor=False)
        grid([Card(product, shown.thumbnail) for product, shown in known.newest], DOING)


def _narrowed(wanted: Query, wish: SearchFormState) -> Query:
    return replace(
        wanted,
        k=wish.k,
        filters=filters(wish),
        fold=wish.fold,
        near_match=wish.near_match,
        min_similarity=wish.min_similarity,
    )


def _found(query: Query) -> SearchResult | None:
    """The open page of the query's results; the same query is not searched twice.

    None where too many search just now, which the page has said.
    """
    state = st.session_state
    if PAGES not in state or state[PAGES].query != query:
        state[PAGES] = Pages(query)
    pages: Pages = state[PAGES]
    memory = state.setdefault(MEMORY, VectorCache())
    try:
        with st.spinner("Searching …"):
            return pages.result(lambda asked: services().search.search(asked, memory))
    except Busy as exc:
        st.warning(plain(str(exc)))
        st.button("Try again", type="primary", icon=":material/refresh:")
        return None


def _results(result: SearchResult) -> None:
    pages: Pages = st.session_state[PAGES]
    count, best = len(result.matches), "best" if pages.query.words else "most similar"
    page = f" · page {pages.number + 1}" if pages.number else ""
    with st.container(key="results"):
        if count:
            st.header(f"{count} product{'s' * (count != 1)}, {best} first{page}", anchor=False)
        elif pages.number:
            st.header("There are no more products", anchor=False)
        else:
            st.header("No product was found", anchor=False)
        grid([Card(match.product, match.thumbnail, match) for match in result.matches], DOING)
        turn(pages, more=count == pages.query.k)
        result_pages.scroll()
        answer_footer.explain(result)
        st.button("Search again", type="tertiary", icon=":material/refresh:", on_click=_again)


def _again() -> None:
    st.session_state.pop(PAGES, None)
