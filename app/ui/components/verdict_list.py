"""The list of verdicts: what was decided, by whom and when, newest first."""

from __future__ import annotations

import streamlit as st

from app.bootstrap import App
from app.duplicates import review as duplicate_review
from app.duplicates.review import ReviewDecision
from app.ui.formatting import when
from app.ui.shared import plain

AT_ONCE = 10
"""Verdicts of one page."""

PAGE = "verdicts_page"


def show(app: App, *, may_judge: bool) -> tuple[str, str] | None:
    """Draw the list; returns the skus of two products that are to be judged again."""
    page = st.session_state.get(PAGE, 1)
    found = duplicate_review.newest(app.engine, AT_ONCE + 1, (page - 1) * AT_ONCE)
    if not found and page == 1:
        return None
    st.subheader("Decided so far", anchor=False, divider="gray")
    again = None
    for decided in found[:AT_ONCE]:
        if _verdict(decided, may_judge=may_judge):
            again = decided.verdict.sku_a, decided.verdict.sku_b
    if page > 1 or len(found) > AT_ONCE:
        st.number_input("Page", 1, page + (len(found) > AT_ONCE), key=PAGE, width=140)
    return again


def _verdict(decided: ReviewDecision, *, may_judge: bool) -> bool:
    """One verdict; returns whether it is to be judged again."""
    verdict = decided.verdict
    skus = (verdict.sku_a, verdict.sku_b)
    first, second = (
        f"**{plain(title or sku)}** ({plain(sku)})"
        for title, sku in zip(decided.titles, skus, strict=True)
    )
    said = "are the same" if verdict.same else "differ"
    by = f"{plain(verdict.decided_by)}, {when(verdict.decided_at)}"
    with st.container(horizontal=True, vertical_alignment="center", border=True):
        st.markdown(f"{first} and {second} **{said}**  \n:small[{by}]")
        if not may_judge:
            return False
        return st.button(
            "Judge again",
            key=f"again {skus!r}",
            help=f"Put {plain(skus[0])} and {plain(skus[1])} side by side again",
        )
