"""The list of verdicts, newest first, with names and times."""

from __future__ import annotations

import streamlit as st

from app.bootstrap import App
from app.duplicates import review as duplicate_review
from app.duplicates.review import ReviewDecision
from app.ui.formatting import escape_markdown, format_time
from app.ui.translation import _

PAGE_SIZE = 10
"""Verdicts on one page of the list."""

PAGE_KEY = "verdicts_page"
"""Session key of the page number, from 1."""


def show(app: App, *, may_judge: bool) -> tuple[str, str] | None:
    """Draw the list; returns the skus of the pair to judge again, if its button was pressed."""
    page = st.session_state.get(PAGE_KEY, 1)
    decisions = duplicate_review.latest_decisions(app.engine, PAGE_SIZE + 1, (page - 1) * PAGE_SIZE)
    if not decisions and page == 1:
        return None
    has_next = len(decisions) > PAGE_SIZE
    st.subheader(_("Decided so far"), anchor=False, divider="gray")
    judge_again = None
    for decision in decisions[:PAGE_SIZE]:
        if _draw_decision(decision, may_judge=may_judge):
            judge_again = decision.verdict.sku_a, decision.verdict.sku_b
    if page > 1 or has_next:
        st.number_input(_("Page"), 1, page + has_next, key=PAGE_KEY, width=140)
    return judge_again


def _draw_decision(decision: ReviewDecision, *, may_judge: bool) -> bool:
    """Draw one verdict; returns whether its button was pressed."""
    verdict = decision.verdict
    skus = (verdict.sku_a, verdict.sku_b)
    first, second = (
        f"**{escape_markdown(title or sku)}** ({escape_markdown(sku)})"
        for title, sku in zip(decision.titles, skus, strict=True)
    )
    text = _("{first} and {second} **differ**")
    if verdict.same:
        text = _("{first} and {second} **are the same**")
    by = f"{escape_markdown(verdict.decided_by)}, {format_time(verdict.decided_at)}"
    with st.container(horizontal=True, vertical_alignment="center", border=True):
        st.markdown(f"{text.format(first=first, second=second)}  \n:small[{by}]")
        if not may_judge:
            return False
        names = list(map(escape_markdown, skus))
        return st.button(
            _("Judge again"), key=f"again {skus!r}",
            help=_("Put {first} and {second} side by side again").format(
                first=names[0], second=names[1]
            ),
        )  # fmt: skip
