"""Trust: the quiet words under the results that say what answered, and why it was not more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import streamlit as st

from app.search.explain import why_dropped
from app.types import Dropped, Plan, SearchResult
from app.ui.shared import plain

STAGES = {
    "wait": "wait",
    "encode": "encode",
    "search": "search",
    "details": "details",
    "total": "in all",
}
"""Stages of a search that are told, and what they are called here."""


def explain(result: SearchResult) -> None:
    """Say how a result came about."""
    plan = result.plan
    if plan.shortfall:
        st.info(plain(f"Fewer than asked: {plan.shortfall}."))
    if result.dropped:
        _left_out(result.dropped)
    if fallback(plan):
        st.caption(
            plain(f"The index did not answer: {plan.reason}. PostgreSQL did, as completely."),
            help="It takes longer in a large catalogue. Building the index anew may help.",
        )
    st.caption(plain(line(plan, datetime.now(UTC))))


def fallback(plan: Plan) -> bool:
    """Whether another path than the best one for this query answered."""
    return plan.reason_code not in ("build", "filter", "words")


def line(plan: Plan, now: datetime) -> str:
    """What answered, from which build, and how long it took; `now` is aware of its time zone."""
    said = f"Answered by {plan.path}: {plan.reason}."
    if plan.built_at is not None:
        said += f" The index was built {ago(now - plan.built_at)}."
    if plan.words:
        said += f" The words were read by the {plan.words.replace(' and ', ' and the ')}."
    if plan.replica_lag_s:
        said += f" This copy of the database is {plan.replica_lag_s:.0f} s behind."
    took = ", ".join(
        f"{name} {plan.ms[stage]:.0f}" for stage, name in STAGES.items() if stage in plan.ms
    )
    return f"{said} Model: {plan.model}. Milliseconds: {took}."


def ago(age: timedelta) -> str:
    """An age in words, to the largest unit: `3 hours ago`; less than a minute is `just now`."""
    seconds = age.total_seconds()
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        count = int(seconds // length)
        if count >= 1:
            return f"{count} {unit}{'s' * (count != 1)} ago"
    return "just now"


def _left_out(dropped: tuple[Dropped, ...]) -> None:
    with st.expander(f"Left out: {len(dropped)}"):
        st.markdown("\n".join(f"- {plain(why(drop))}" for drop in dropped))


def why(drop: Dropped) -> str:
    """What was left out and why."""
    return f"{drop.sku}: {why_dropped(drop, decimals=3)}"
