"""The index page: the builds over time, the delta, and a button to rebuild."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import streamlit as st

from app.bootstrap import App
from app.index.status import LISTED_BUILDS, IndexStatus, index_status
from app.types import Build
from app.ui.components import rebuild_button
from app.ui.formatting import format_duration, format_size, format_time
from app.ui.shared import errors_as_text, services

REFRESH_S = 10.0
"""Seconds between two reads of the delta while the page is open."""

MAX_POINTS = 360
"""Points of the delta chart that a session keeps: one hour."""

DELTA_HISTORY = "delta_history"
"""Session key of the points."""


def show() -> None:
    """Draw the page."""
    st.title("Index", anchor=False)
    with errors_as_text("the index page"):
        app = services()
        # Each part has a place of its own. Else what a rebuild shows would move the parts below it
        # to other places, where they are drawn anew while the former ones still stand.
        rebuild, current, history = (
            st.container(key=f"index-{name}") for name in ("rebuild", "current", "history")
        )
        with rebuild:
            rebuild_button.show(app)
        status = index_status(app.engine, app.settings)
        with current:
            st.fragment(_draw_current, run_every=REFRESH_S)(app, _identity(status))
        with history:
            _draw_builds(status, app.settings.recall_goal)


def _draw_builds(status: IndexStatus, goal: float) -> None:
    if not status.builds:
        st.info("No index was built yet: pgvector answers, which is right and slower.")
        return
    _draw_history(status.builds, goal)
    st.subheader("Builds", anchor=False)
    rows = [_table_row(build) for build in status.builds]
    st.dataframe(rows, hide_index=True, placeholder="")
    if len(status.builds) == LISTED_BUILDS:
        st.caption(f"The last {LISTED_BUILDS} are shown.")


def _draw_current(app: App, drawn: object) -> None:
    """Draw the build in use and the delta; if the builds changed, redraw the whole page."""
    with errors_as_text("the state of the index"):
        status = index_status(app.engine, app.settings)
        if _identity(status) != drawn:
            st.rerun()
        _draw_metrics(status)
        if status.in_use is not None:
            _draw_delta(status)


def _identity(status: IndexStatus) -> object:
    """Changes when there is a new build, or another one is in use."""
    newest = next(iter(status.builds), None)
    return newest and (newest.id, newest.state), status.in_use and status.in_use.id


def _draw_metrics(status: IndexStatus) -> None:
    build, delta = status.in_use, status.delta
    changed = f"{delta.rows:,}" if delta.rows <= delta.max_rows else f"over {delta.max_rows:,}"
    metrics = [("Changed since" if build else "Embeddings", changed)]
    if build is not None:
        age = (delta.now - build.finished_at).total_seconds() if build.finished_at else 0.0
        recall = "" if build.recall_at_10 is None else f"{build.recall_at_10:.3f}"
        metrics = [
            ("In use", f"build {build.id}"),
            ("Pictures", f"{build.rows:,}"),
            ("Recall@10", recall),
            ("Size", format_size(build.size)),
            ("Age", format_duration(age)),
            *metrics,
        ]
    with st.container(key="figures", horizontal=True):
        for label, value in metrics:
            st.metric(label, value, border=True, width=170)


def _draw_delta(status: IndexStatus) -> None:
    """Draw the size of the delta since the page was opened."""
    from app.ui.components.index_charts import delta_chart  # here, because altair loads slowly

    history: list[tuple[datetime, int]] = st.session_state.get(DELTA_HISTORY, [])
    history = [*history, (status.delta.now, status.delta.rows)][-MAX_POINTS:]
    st.session_state[DELTA_HISTORY] = history
    st.subheader("Changed since the index was built", anchor=False)
    st.altair_chart(delta_chart(history, status.delta), key="delta")
    st.caption(_delta_caption(status))


def _delta_caption(status: IndexStatus) -> str:
    delta = status.delta
    return (
        "Searches see all changes at once: what is not in the index yet is compared exactly. A "
        "worker rebuilds the index when that makes searches slower, at the latest when more than "
        f"{delta.worker_rows:,.0f} embeddings have changed, or once a day; above "
        f"{delta.max_rows:,} pgvector answers instead of the index."
    )


def _draw_history(builds: Sequence[Build], goal: float) -> None:
    from app.ui.components.index_charts import recall_chart, size_chart

    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Recall", anchor=False)
        st.altair_chart(recall_chart(builds, goal), key="recall")
        st.caption(f"The dashed line is the goal: an index below {goal:g} is not published.")
    with right:
        st.subheader("Size", anchor=False)
        st.altair_chart(size_chart(builds), key="size")


def _table_row(build: Build) -> dict[str, Any]:
    return {
        "build": build.id,
        "state": build.state,
        "kind": build.kind,
        "pictures": build.rows,
        "size": format_size(build.size) if build.size else None,
        "recall@10": build.recall_at_10,
        "with filters": build.recall_filtered,
        "seconds": build.seconds,
        "finished": format_time(build.finished_at),
        "reason": build.reason,
    }
