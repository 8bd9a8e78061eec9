"""Pages: those of one query that were looked at, so that going back shows what was shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import streamlit as st

from app.types import Query, SearchResult

KEPT = 8
"""Pages whose results are kept; one further back is searched again with the same query."""


class Pages:
    """The pages of one query, of which one is open; for one person at a time."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self.number = 0
        self._shown: list[tuple[str, ...]] = []
        self._results: dict[int, SearchResult] = {}

    def result(self, search: Callable[[Query], SearchResult]) -> SearchResult:
        """The page that is open, searched for if it is not kept."""
        if self.number not in self._results:
            shown = tuple(sku for page in self._shown[: self.number] for sku in page)
            found = search(replace(self.query, shown=(*self.query.shown, *shown)))
            self._keep(found)
        return self._results[self.number]

    def turn(self, by: int) -> None:
        """Open the next page (1) or the one before (-1)."""
        # A second click may come before the page that the first one opened was searched for.
        self.number = max(0, min(self.number + by, len(self._shown)))
        to_the_top()

    def _keep(self, found: SearchResult) -> None:
        # What follows went on from what was shown here before, which may have changed.
        self._shown[self.number :] = [found.shown]
        self._results = {
            number: result
            for number, result in self._results.items()
            if self.number - KEPT < number < self.number
        } | {self.number: found}


def turn(pages: Pages, *, more: bool) -> None:
    """Draw the buttons that open the pages beside this one; `more` if there may be a next one."""
    if not (more or pages.number):
        return
    with st.container(key="turn", horizontal=True, horizontal_alignment="center"):
        st.button(
            "Previous page", icon=":material/chevron_left:", disabled=not pages.number,
            on_click=pages.turn, args=(-1,),
        )  # fmt: skip
        st.button(
            "Next page", icon=":material/chevron_right:", icon_position="right", disabled=not more,
            on_click=pages.turn, args=(1,),
        )  # fmt: skip


DUE = "search_top_due"


TIMES = "search_top_times"


SCRIPT = """<script>{ // TIMES
  const results = document.querySelector(".st-key-results");
  results.tabIndex = -1;
  results.focus();
  results.scrollIntoView();
}</script>"""
"""The keyboard goes on from there too. Streamlit runs a script again only if it reads otherwise,
for which it is numbered."""


def to_the_top() -> None:
    """Show the results of the run that follows from their top; in a callback."""
    st.session_state[DUE] = True


def scroll() -> None:
    """Do so if it was asked for, now that the results are drawn."""
    if st.session_state.pop(DUE, False):
        times = st.session_state[TIMES] = st.session_state.get(TIMES, 0) + 1
        st.html(SCRIPT.replace("TIMES", str(times)), unsafe_allow_javascript=True)
