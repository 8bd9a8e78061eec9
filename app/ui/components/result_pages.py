"""Result pages of one query: keeps the pages that were shown, draws the paging buttons, scrolls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import streamlit as st

from app.types import Query, SearchResult

MAX_KEPT = 8
"""Pages whose results are kept; an older one is searched again with the same query."""

SCROLL_DUE = "search_scroll_due"
SCROLL_COUNT = "search_scroll_count"

SCRIPT = """<script>{ // COUNT
  const results = document.querySelector(".st-key-results");
  results.tabIndex = -1;
  results.focus();
  results.scrollIntoView();
}</script>"""
"""Scrolls to the results and moves the keyboard focus there. Streamlit runs a script again only if
its text differs, hence the COUNT."""


class ResultPages:
    """The pages of one query, one of which is current; for one session."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self.number = 0
        self._shown: list[tuple[str, ...]] = []
        self._results: dict[int, SearchResult] = {}

    def result(self, search: Callable[[Query], SearchResult]) -> SearchResult:
        """The result of the current page, searched if it is not kept."""
        if self.number not in self._results:
            shown = tuple(sku for page in self._shown[: self.number] for sku in page)
            result = search(replace(self.query, shown=(*self.query.shown, *shown)))
            self._keep(result)
        return self._results[self.number]

    def turn(self, step: int) -> None:
        """Make the next page (1) or the previous one (-1) current."""
        # A second click may arrive before the page of the first click was searched.
        self.number = max(0, min(self.number + step, len(self._shown)))
        request_scroll()

    def _keep(self, result: SearchResult) -> None:
        # Later pages exclude the products of this page, which may have changed: drop them.
        self._shown[self.number :] = [result.shown]
        self._results = {
            number: kept
            for number, kept in self._results.items()
            if self.number - MAX_KEPT < number < self.number
        } | {self.number: result}


def draw_buttons(pages: ResultPages, *, has_next: bool) -> None:
    """Draw the buttons for the previous and the next page, if there is any."""
    if not (has_next or pages.number):
        return
    with st.container(key="turn", horizontal=True, horizontal_alignment="center"):
        st.button(
            "Previous page", icon=":material/chevron_left:", disabled=not pages.number,
            on_click=pages.turn, args=(-1,),
        )  # fmt: skip
        st.button(
            "Next page", icon=":material/chevron_right:", icon_position="right",
            disabled=not has_next, on_click=pages.turn, args=(1,),
        )  # fmt: skip


def request_scroll() -> None:
    """Let the next run scroll to the top of the results; a callback."""
    st.session_state[SCROLL_DUE] = True


def scroll_if_requested() -> None:
    """Scroll to the top of the results, if requested; after they are drawn."""
    if st.session_state.pop(SCROLL_DUE, False):
        count = st.session_state[SCROLL_COUNT] = st.session_state.get(SCROLL_COUNT, 0) + 1
        st.html(SCRIPT.replace("COUNT", str(count)), unsafe_allow_javascript=True)
