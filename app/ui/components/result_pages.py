"""Result pages of one query: keeps the pages that were shown, draws the paging buttons, scrolls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import streamlit as st

from app.types import Query, SearchResult
from app.ui.translation import _

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
    """The pages of one query; for one session."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self._shown: list[tuple[str, ...]] = []
        self._last: list[bool] = []
        self._results: dict[int, SearchResult] = {}

    def result(
        self, number: int, search: Callable[[Query], SearchResult]
    ) -> tuple[int, SearchResult]:
        """Page `number` (from 1), or the last one if there are fewer pages, with its number.

        Pages before it are searched if they were not yet, because they say what it must not repeat.
        """
        while len(self._shown) < number - 1 and not self._is_last(len(self._shown)):
            self._search(len(self._shown) + 1, search)
        if self._is_last(len(self._shown)):
            number = min(number, len(self._shown))
        if number not in self._results:
            self._search(number, search)
        return number, self._results[number]

    def _is_last(self, number: int) -> bool:
        """Whether a page that was searched (0: none was) is the last one."""
        return number > 0 and self._last[number - 1]

    def _search(self, number: int, search: Callable[[Query], SearchResult]) -> None:
        shown = tuple(sku for page in self._shown[: number - 1] for sku in page)
        result = search(replace(self.query, shown=(*self.query.shown, *shown)))
        # Later pages exclude the products of this page, which may have changed: drop them.
        self._shown[number - 1 :] = [result.shown]
        is_last = len(result.matches) < self.query.k and not result.gave_up
        self._last[number - 1 :] = [is_last]
        self._results = {
            kept: each for kept, each in self._results.items() if number - MAX_KEPT < kept < number
        } | {number: result}


def draw_buttons(number: int, *, has_next: bool, turn: Callable[[int], None]) -> None:
    """Draw the buttons for the previous and the next page, if there is any; `turn` opens a page."""
    if not (has_next or number > 1):
        return
    with st.container(key="turn", horizontal=True, horizontal_alignment="center"):
        st.button(
            _("Previous page"), icon=":material/chevron_left:", disabled=number == 1,
            on_click=turn, args=(number - 1,),
        )  # fmt: skip
        st.button(
            _("Next page"), icon=":material/chevron_right:", icon_position="right",
            disabled=not has_next, on_click=turn, args=(number + 1,),
        )  # fmt: skip


def request_scroll() -> None:
    """Let the next run scroll to the top of the results; a callback."""
    st.session_state[SCROLL_DUE] = True


def scroll_if_requested() -> None:
    """Scroll to the top of the results, if requested; after they are drawn."""
    if st.session_state.pop(SCROLL_DUE, False):
        count = st.session_state[SCROLL_COUNT] = st.session_state.get(SCROLL_COUNT, 0) + 1
        st.html(SCRIPT.replace("COUNT", str(count)), unsafe_allow_javascript=True)
