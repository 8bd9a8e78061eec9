"""Scrolling: results that are others than before are shown from their top."""

from __future__ import annotations

import streamlit as st

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
