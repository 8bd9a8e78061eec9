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
from app.ui.engine_texts import engine_text
from app.ui.formatting import (
    format_decimal,
    format_duration,
    format_measure,
    format_number,
    format_size,
    format_time,
)
from app.ui.shared import errors_as_text, services
from app.ui.translation import _

REFRESH_S = 10.0
"""Seconds between two reads of the delta while the page is open."""

MAX_POINTS = 360
"""Points of the delta chart that a session keeps: one hour."""

DELTA_HISTORY = "delta_history"
"""Session key of the points."""


def show() -> None:
    """Draw the page."""
    st.title(_("Index"), anchor=False)
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
        st.info(_("No index was built yet: pgvector answers, which is right and slower."))
        return
    _draw_history(status.builds, goal)
    st.subheader(_("Builds"), anchor=False)
    rows = [_table_row(build) for build in status.builds]
    st.dataframe(rows, hide_index=True, placeholder="")
    if len(status.builds) == LISTED_BUILDS:
        st.caption(_("The last {count} are shown.").format(count=LISTED_BUILDS))


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
    changed = format_number(delta.rows)
    if delta.rows > delta.max_rows:
        changed = _("over {number}").format(number=format_number(delta.max_rows))
    metrics = [(_("Changed since") if build else _("Embeddings"), changed)]
    if build is not None:
        age = (delta.now - build.finished_at).total_seconds() if build.finished_at else 0.0
        recall = "" if build.recall_at_10 is None else format_decimal(build.recall_at_10, 3)
        metrics = [
            (_("In use"), _("build {number}").format(number=build.id)),
            (_("Pictures"), format_number(build.rows)),
            (_("Recall@10"), recall),
            (_("Size"), format_size(build.size)),
            (_("Age"), format_duration(age)),
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
    st.subheader(_("Changed since the index was built"), anchor=False)
    st.altair_chart(delta_chart(history, status.delta), key="delta")
    st.caption(_delta_caption(status))


def _delta_caption(status: IndexStatus) -> str:
    delta = status.delta
    text = _(
        "Searches see all changes at once: what is not in the index yet is compared exactly. A "
        "worker rebuilds the index when that makes searches slower, at the latest when more than "
        "{worker_rows} embeddings have changed, or once a day; above {max_rows} pgvector answers "
        "instead of the index."
    )
    return text.format(
        worker_rows=format_number(delta.worker_rows), max_rows=format_number(delta.max_rows)
    )


def _draw_history(builds: Sequence[Build], goal: float) -> None:
    from app.ui.components.index_charts import recall_chart, size_chart

    left, right = st.columns(2, gap="large")
    with left:
        st.subheader(_("Recall"), anchor=False)
        st.altair_chart(recall_chart(builds, goal), key="recall")
        text = _("The dashed line is the goal: an index below {goal} is not published.")
        st.caption(text.format(goal=format_measure(goal)))
    with right:
        st.subheader(_("Size"), anchor=False)
        st.altair_chart(size_chart(builds), key="size")


def _table_row(build: Build) -> dict[str, Any]:
    return {
        _("build"): build.id,
        _("state"): engine_text(build.state),
        _("kind"): build.kind,
        _("pictures"): build.rows,
        _("size"): format_size(build.size) if build.size else None,
        _("recall@10"): build.recall_at_10,
        _("with filters"): build.recall_filtered,
        _("seconds"): build.seconds,
        _("finished at"): format_time(build.finished_at),
        _("reason"): engine_text(build.reason or "") or None,
    }
