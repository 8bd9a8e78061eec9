"""What stands below the results: how they were found, how long it took, what was hidden."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import streamlit as st

from app.search.explain import reading_texts, why_dropped, words_text
from app.types import Dropped, Plan, SearchResult
from app.ui.formatting import escape_markdown

STAGES = {
    "wait": "wait",
    "load": "load the model",
    "encode": "encode",
    "search": "search",
    "details": "details",
    "total": "in all",
}
"""Timed stages of a search that are shown, by name, with their labels."""

MIN_LOAD_MS = 1.0
"""A model that was loaded before takes less."""


def draw(result: SearchResult, search_again: Callable[[], None]) -> None:
    """Draw what was read differently from how it was typed and, folded, how the search went."""
    plan = result.plan
    for sentence in reading_texts(plan):
        st.info(escape_markdown(sentence))
    with st.expander("Search details"):
        if plan.shortfall and result.matches:
            st.caption(escape_markdown(plan.shortfall))
        if result.dropped:
            lines = "\n".join(f"- {escape_markdown(drop_text(drop))}" for drop in result.dropped)
            st.markdown(f"Hidden: {len(result.dropped)}\n\n{lines}")
        if fallback(plan):
            st.caption(
                escape_markdown(
                    f"The index did not answer: {plan.reason}. PostgreSQL did, as completely."
                ),
                help="It takes longer in a large catalogue. Rebuilding the index may help.",
            )
        st.caption(escape_markdown(summary(plan, datetime.now(UTC))))
        st.button("Search again", type="tertiary", icon=":material/refresh:", on_click=search_again)


def fallback(plan: Plan) -> bool:
    """Whether another path than the best one for this query answered."""
    return plan.reason_code not in ("build", "filter", "words")


def summary(plan: Plan, now: datetime) -> str:
    """The path, the build, the model and the time of each stage; `now` needs a time zone."""
    text = f"Answered by {plan.path}: {plan.reason}."
    if plan.built_at is not None:
        text += f" The index was built {ago(now - plan.built_at)}."
    if plan.words:
        text += f" {words_text(plan)}"
    if plan.replica_lag_s:
        text += f" This copy of the database is {plan.replica_lag_s:.0f} s behind."
    times = ", ".join(
        f"{name} {plan.ms[stage]:.0f}"
        for stage, name in STAGES.items()
        if stage in plan.ms and not (stage == "load" and plan.ms[stage] < MIN_LOAD_MS)
    )
    return f"{text} Model: {plan.model}. Milliseconds: {times}."


def ago(age: timedelta) -> str:
    """An age in its largest unit, as in `3 hours ago`; below a minute it is `just now`."""
    seconds = age.total_seconds()
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        count = int(seconds // length)
        if count >= 1:
            return f"{count} {unit}{'s' * (count != 1)} ago"
    return "just now"


def drop_text(drop: Dropped) -> str:
    """A dropped product and the reason."""
    return f"{drop.sku}: {why_dropped(drop, decimals=3)}"
