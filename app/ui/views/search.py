"""The search page: what is asked on the left, the filters and results on the right."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import streamlit as st

from app.catalog.service import ProductList
from app.errors import Busy, LookalikeError
from app.search.facets import Facets
from app.types import Query, SearchResult
from app.ui.components import (
    answer_footer,
    photo_objects,
    pins,
    product_dialog,
    result_headings,
    result_pages,
)
from app.ui.components.product_cards import Card, CardActions, draw_grid
from app.ui.components.result_pages import ResultPages
from app.ui.engine_texts import engine_text
from app.ui.formatting import escape_markdown
from app.ui.search_form import (
    filter_bar,
    picture_inputs,
    query_form,
    recent,
    session_state,
    sorting,
    uploads,
)
from app.ui.search_form.picture_inputs import PictureInput
from app.ui.search_form.state import SearchFormState, to_filters
from app.ui.shared import errors_as_text, services, uninterrupted
from app.ui.translation import _

PAGES = "search_pages"
"""Session key of the result pages of the last query."""

CLOSE = "search_close"
"""Session key of the last photo searched, as a query without words, and whether it has a close
match."""

ACTIONS = CardActions(
    query_form.more_like, product_dialog.request, product_dialog.request_similar,
    pins.toggle, pins.is_pinned,
)  # fmt: skip


def show() -> None:
    """Draw the page."""
    st.title(_("Find products by picture"), anchor=False)
    with errors_as_text("the search page"):
        session_state.restore()
        not_kept = uploads.forget_unknown_photo()
        session_state.save()
        left, right = st.columns([1, 3], gap="large")
        with left, st.container(key="ask"):
            pictures = query_form.draw()
        with right:
            for message in filter(None, (*session_state.take_url_errors(), not_kept)):
                st.warning(escape_markdown(message))
            _draw_answer(pictures)


def _draw_answer(pictures: PictureInput) -> None:
    catalogue = _facets_or_error()
    form = session_state.current()
    query = query_form.build_query(form, pictures)
    facets = None
    if isinstance(catalogue, Facets) and catalogue.bounds.products:
        facets = _draw_filters(form, query, catalogue)
    result = None
    if query is not None:
        with errors_as_text("a search"):
            result = _draw_search(query, form, pictures, facets)
    elif not pictures.invalid:  # show one error, not two
        _draw_without_query(form, catalogue, facets)
    product_dialog.show(result, pictures.asked, query_form.more_like)


def _draw_without_query(
    form: SearchFormState, catalogue: Facets | str, facets: Facets | None
) -> None:
    if isinstance(catalogue, str):
        st.error(escape_markdown(engine_text(catalogue)))
    elif facets is None:
        st.info(_("The catalogue is empty. Load products with `lookalike ingest`, then search."))
    else:
        with errors_as_text("the list of products"):
            _draw_list(form, facets)


def _facets_or_error() -> Facets | str:
    """The facets of the catalogue, or the message why they cannot be read."""
    try:
        return filter_bar.get_facets()
    except LookalikeError as exc:
        return str(exc)


def _draw_filters(form: SearchFormState, query: Query | None, catalogue: Facets) -> Facets:
    """Draw the filters; returns the facets of what is found."""
    facets = _facets_of_answer(form, query, catalogue)
    reads_words = query is not None and services().encoders.may_read_words(None)
    filter_bar.draw(facets, searching=query is not None, reads_words=reads_words)
    return facets


def _facets_of_answer(form: SearchFormState, query: Query | None, catalogue: Facets) -> Facets:
    """The facets of what is found with the filters as they are now; those of the catalogue if they
    make no sense."""
    vectors = uploads.vectors()
    try:
        filters = to_filters(form)
        if query is None:
            return filter_bar.facets_of(filters, vectors)
        return filter_bar.facets_of(_with_filters(query, form), vectors)
    except LookalikeError:  # the answer says so
        return catalogue


def _draw_list(form: SearchFormState, facets: Facets) -> None:
    """Without a query: the newest products, or those that pass the filters, a page at a time."""
    order, first = sorting.list_order(form), (form.page - 1) * form.k
    with services().admission.admitted():
        listed = services().catalog.browse(to_filters(form), order, first=first, count=form.k)
    with st.container(key="results"):
        result_headings.draw_list(listed, form, facets)
        cards = [Card(each.product, each.thumbnail) for each in listed.products]
        draw_grid(cards, ACTIONS)
        _draw_turn(form.page, has_next=_has_more(listed, first))
        result_pages.scroll_if_requested()


def _has_more(listed: ProductList, first: int) -> bool:
    return listed.total.more or first + len(listed.products) < listed.total.products


def _with_filters(query: Query, form: SearchFormState) -> Query:
    return replace(
        query,
        k=sorting.results_needed(form),
        filters=to_filters(form),
        fold=form.fold,
        near_match=form.near_match,
        min_similarity=form.min_similarity,
    )


def _draw_search(
    query: Query, form: SearchFormState, pictures: PictureInput, facets: Facets | None
) -> SearchResult | None:
    """Draw the results; returns them, or None while too many searches run."""
    query = _with_filters(query, form)
    found = _search(query, form)
    if found is None:
        return None
    found_page, result = found
    number = sorting.number_of(result, form, found_page)
    if pictures.photos and picture_inputs.remember_objects(form, query, result):
        st.rerun()  # with their boxes on the photo
    if number != form.page:  # there are fewer pages
        session_state.update(page=number)
        session_state.save()
    recent.remember(form, pictures.asked)
    page = sorting.page_of(result, form, number)
    with st.container(key="results"):
        close = _is_close(query, result) if number == 1 else result.close
        result_headings.draw_search(page, form, query, facets, close=close)
        if pictures.photos:
            regions, current = picture_inputs.matches_of_objects(form, query, result)
            photo_objects.draw(regions, form.box, picture_inputs.choose_box, with_matches=current)
        cards = [Card(match.product, match.thumbnail, match) for match in page.matches]
        draw_grid(cards, ACTIONS)
        _draw_turn(number, has_next=page.has_next)
        result_pages.scroll_if_requested()
        answer_footer.draw(result, query, _forget_pages)
    return result


def _search(query: Query, form: SearchFormState) -> tuple[int, SearchResult] | None:
    """The page of results, with its number; an unchanged query is not searched again.

    None while too many searches run, which the page shows.
    """
    state = st.session_state
    if PAGES not in state or state[PAGES].query != query:
        state[PAGES] = ResultPages(query)
    pages: ResultPages = state[PAGES]
    vectors = uploads.vectors()
    search = partial(services().search.search, cache=vectors)
    try:
        with st.spinner(
            _("Searching …") if services().is_warm else _("Loading the model and the index …")
        ):
            return pages.result(sorting.search_page(form), search)
    except Busy as exc:
        st.warning(escape_markdown(engine_text(str(exc))))
        st.button(_("Try again"), type="primary", icon=":material/refresh:")
        return None


def _is_close(query: Query, result: SearchResult) -> bool | None:
    """Whether the photo of a first page has a close match, as it is without words: these change
    what is compared, and not what the photo shows. None if that is not known."""
    if query.picture is None:
        return result.close
    alone = replace(
        query, words=None, words_weight=0.5, words_by=None, without_words=None, k=1, fold=False
    )
    state = st.session_state
    if not (query.words or query.without_words):
        state[CLOSE] = alone, result.close
    elif CLOSE not in state or state[CLOSE][0] != alone:
        try:
            found = services().search.search(alone, uploads.vectors())
        except Busy:
            return None
        state[CLOSE] = alone, found.close
    close: bool | None = state[CLOSE][1]
    return close


def _draw_turn(number: int, *, has_next: bool) -> None:
    result_pages.draw_buttons(number, has_next=has_next, turn=_turn)


@uninterrupted
def _turn(number: int) -> None:
    session_state.update(page=number)
    result_pages.request_scroll()


@uninterrupted
def _forget_pages() -> None:
    st.session_state.pop(PAGES, None)
    st.session_state.pop(CLOSE, None)
    st.session_state.pop(filter_bar.FACETS, None)
