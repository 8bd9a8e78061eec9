"""What stands below the results: how they were found, how long it took, what was hidden."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import streamlit as st

from app.types import Dropped, Plan, Query, SearchResult
from app.ui.engine_texts import engine_text, reading_texts, why_dropped, words_text
from app.ui.formatting import escape_markdown, format_number
from app.ui.shortfall_text import shortfall_text
from app.ui.translation import N_, _, ngettext

STAGES = {
    "wait": N_("wait"),
    "load": N_("load the model"),
    "encode": N_("encode"),
    "search": N_("search"),
    "details": N_("details"),
    "total": N_("in all"),
}
"""Timed stages of a search that are shown, by name, with their labels."""

MIN_LOAD_MS = 1.0
"""A model that was loaded before takes less."""


def draw(result: SearchResult, query: Query, search_again: Callable[[], None]) -> None:
    """Draw what was read differently from how it was typed and, folded, how the search went."""
    plan = result.plan
    for sentence in reading_texts(plan):
        st.info(escape_markdown(sentence))
    with st.expander(_("Search details")):
        if plan.shortfall and result.matches:
            st.caption(escape_markdown(shortfall_text(plan, query)))
        if result.dropped:
            lines = "\n".join(f"- {escape_markdown(drop_text(drop))}" for drop in result.dropped)
            heading = _("Hidden: {count}").format(count=len(result.dropped))
            st.markdown(f"{heading}\n\n{lines}")
        if fallback(plan):
            text = _("The index did not answer: {reason}. PostgreSQL did, as completely.")
            st.caption(
                escape_markdown(text.format(reason=engine_text(plan.reason))),
                help=_("It takes longer in a large catalogue. Rebuilding the index may help."),
            )
        st.caption(escape_markdown(summary(plan, datetime.now(UTC))))
        st.button(
            _("Search again"), type="tertiary", icon=":material/refresh:", on_click=search_again
        )


def fallback(plan: Plan) -> bool:
    """Whether another path than the best one for this query answered."""
    return plan.reason_code not in ("build", "filter", "words")


def summary(plan: Plan, now: datetime) -> str:
    """The path, the build, the model and the time of each stage; `now` needs a time zone."""
    reason = engine_text(plan.reason)
    sentences = [_("Answered by {path}: {reason}.").format(path=plan.path, reason=reason)]
    if plan.built_at is not None:
        age = ago(now - plan.built_at)
        sentences.append(_("The index was built {age}.").format(age=age))
    if plan.words:
        sentences.append(words_text(plan))
    if plan.replica_lag_s:
        text = _("This copy of the database is {seconds} s behind.")
        sentences.append(text.format(seconds=format_number(plan.replica_lag_s)))
    times = ", ".join(
        f"{_(name)} {format_number(plan.ms[stage])}"
        for stage, name in STAGES.items()
        if stage in plan.ms and not (stage == "load" and plan.ms[stage] < MIN_LOAD_MS)
    )
    sentences.append(_("Model: {model}.").format(model=plan.model))
    sentences.append(_("Milliseconds: {times}.").format(times=times))
    return " ".join(sentences)


def ago(age: timedelta) -> str:
    """An age in its largest unit, as in `3 hours ago`; below a minute it is `just now`."""
    seconds = int(age.total_seconds())
    days, hours, minutes = (seconds // length for length in (86_400, 3_600, 60))
    if days >= 1:
        return ngettext("{count} day ago", "{count} days ago", days).format(count=days)
    if hours >= 1:
        return ngettext("{count} hour ago", "{count} hours ago", hours).format(count=hours)
    if minutes >= 1:
        return ngettext("{count} minute ago", "{count} minutes ago", minutes).format(count=minutes)
    return _("just now")


def drop_text(drop: Dropped) -> str:
    """A dropped product and the reason."""
    return f"{drop.sku}: {why_dropped(drop)}"
