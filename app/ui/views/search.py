"""The search page: the search form on the left, the results on the right."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from app.errors import Busy, LookalikeError
from app.search.confidence import NO_CLOSE_MATCH
from app.search.facets import Facets
from app.search.vector_cache import VectorCache
from app.types import Query, SearchResult
from app.ui.components import answer_footer, photo_objects, product_dialog, result_pages
from app.ui.components.product_cards import Card, CardActions, draw_grid
from app.ui.components.result_pages import ResultPages
from app.ui.css import STYLE
from app.ui.formatting import escape_markdown
from app.ui.search_form import filter_bar, query_form, session_state
from app.ui.search_form.picture_inputs import PictureInput
from app.ui.search_form.state import SearchFormState, to_filters
from app.ui.shared import errors_as_text, services

PAGES = "search_pages"
"""Session key of the result pages of the last query."""

VECTORS = "search_vectors"
"""Session key of the cached vectors of query pictures."""

ACTIONS = CardActions(query_form.more_like, product_dialog.request, product_dialog.request_similar)


def show() -> None:
    """Draw the page."""
    st.html(STYLE)
    st.title("Find products by picture", anchor=False)
    with errors_as_text("the search page"):
        session_state.restore()
        left, right = st.columns([1, 3], gap="large")
        with left, st.container(key="ask"):
            pictures = query_form.draw()
        with right:
            _draw_answer(pictures)


def _draw_answer(pictures: PictureInput) -> None:
    for error in session_state.take_url_errors():
        st.warning(escape_markdown(error))
    facets = _facets_or_error()
    query = query_form.build_query(session_state.current(), pictures)
    result = None
    if query is None:
        session_state.save()
        if isinstance(facets, Facets) or not pictures.invalid:  # show one error, not two
            _draw_welcome(facets)
    else:
        if isinstance(facets, Facets):
            filter_bar.draw(_facets_of_results(query, facets))
        with errors_as_text("a search"):
            result = _search(_with_filters(query, session_state.save()))
            if result is not None:
                _draw_results(result, pictures)
    product_dialog.show(result, query_form.more_like)


def _facets_or_error() -> Facets | str:
    """The facets of the catalogue, or the message why they cannot be read."""
    try:
        return filter_bar.get_facets()
    except LookalikeError as exc:
        return str(exc)


def _facets_of_results(query: Query, catalogue: Facets) -> Facets:
    """The facets of what the query finds with the filters as they are now; those of the catalogue
    if they make no sense."""
    try:
        query = _with_filters(query, session_state.current())
    except LookalikeError:  # the search says so
        return catalogue
    return filter_bar.facets_of(query, st.session_state.setdefault(VECTORS, VectorCache()))


def _draw_welcome(facets: Facets | str) -> None:
    """Before the first search: what to do, and some products to start with."""
    if isinstance(facets, str):
        st.error(escape_markdown(facets))
    elif not facets.bounds.products:
        st.info("The catalogue is empty. Load products with `lookalike ingest`, then ask.")
    else:
        st.markdown(
            f"Drop a photo and see which of {facets.bounds.products:,} products look like it, ask "
            "with words, or both."
        )
        st.header("No photo at hand? Begin with a product", anchor=False)
        draw_grid([Card(product, shown.thumbnail) for product, shown in facets.newest], ACTIONS)


def _with_filters(query: Query, form: SearchFormState) -> Query:
    return replace(
        query,
        k=form.k,
        filters=to_filters(form),
        fold=form.fold,
        near_match=form.near_match,
        min_similarity=form.min_similarity,
    )


def _search(query: Query) -> SearchResult | None:
    """The current page of results; an unchanged query is not searched again.

    None while too many searches run, which the page shows.
    """
    state = st.session_state
    if PAGES not in state or state[PAGES].query != query:
        state[PAGES] = ResultPages(query)
    pages: ResultPages = state[PAGES]
    vectors = state.setdefault(VECTORS, VectorCache())
    try:
        with st.spinner(
            "Searching …" if services().is_warm else "Loading the model and the index …"
        ):
            return pages.result(lambda page_query: services().search.search(page_query, vectors))
    except Busy as exc:
        st.warning(escape_markdown(str(exc)))
        st.button("Try again", type="primary", icon=":material/refresh:")
        return None


def _draw_results(result: SearchResult, pictures: PictureInput) -> None:
    pages: ResultPages = st.session_state[PAGES]
    count, best = len(result.matches), "best" if pages.query.words else "most similar"
    page = f" · page {pages.number + 1}" if pages.number else ""
    with st.container(key="results"):
        if count:
            st.header(f"{count} product{'s' * (count != 1)}, {best} first{page}", anchor=False)
        elif pages.number:
            st.header("There are no more products", anchor=False)
        else:
            st.header("No product was found", anchor=False)
        if result.close is False:
            st.info(NO_CLOSE_MATCH)
        if pictures.photos:
            photo_objects.draw(result.regions, pictures.photos[0].preview)
        cards = [Card(match.product, match.thumbnail, match) for match in result.matches]
        draw_grid(cards, ACTIONS)
        result_pages.draw_buttons(pages, has_next=count == pages.query.k or result.gave_up)
        result_pages.scroll_if_requested()
        answer_footer.draw(result)
        st.button(
            "Search again", type="tertiary", icon=":material/refresh:", on_click=_forget_pages
        )


def _forget_pages() -> None:
    st.session_state.pop(PAGES, None)
