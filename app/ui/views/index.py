"""The index page: the builds over time, how much changed since, and a button that makes another."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import streamlit as st

from app.bootstrap import App
from app.index.status import LISTED_BUILDS, IndexStatus, index_status
from app.types import Build
from app.ui.components import rebuild_button
from app.ui.formatting import size, span, when
from app.ui.shared import sentences, services

EVERY_S = 10.0
"""The delta is looked at so often while the page is open."""

REMEMBERED = 360
"""Looks at the delta that a session keeps: an hour."""


def show() -> None:
    """Draw the page."""
    st.title("Index", anchor=False)
    with sentences("the index page"):
        app = services()
        rebuild_button.offer(app)
        life = index_status(app.engine, app.settings)
        st.fragment(_now, run_every=EVERY_S)(app, _newest(life))
        if not life.builds:
            st.info("No index was built yet: pgvector answers, which is right and slower.")
            return
        _over_time(life.builds, app.settings.recall_goal)
        st.subheader("Builds", anchor=False)
        st.dataframe([_row(build) for build in life.builds], hide_index=True, placeholder="")
        if len(life.builds) == LISTED_BUILDS:
            st.caption(f"The last {LISTED_BUILDS} are shown.")


def _now(app: App, drawn: object) -> None:
    """The build in use and the delta as they are now; another build draws the whole page anew."""
    with sentences("the state of the index"):
        life = index_status(app.engine, app.settings)
        if _newest(life) != drawn:
            st.rerun()
        _figures(life)
        if life.in_use is not None:
            _growth(life)


def _newest(life: IndexStatus) -> object:
    newest = next(iter(life.builds), None)
    return newest and (newest.id, newest.state), life.in_use and life.in_use.id


def _figures(life: IndexStatus) -> None:
    build, delta = life.in_use, life.delta
    changed = f"{delta.rows:,}" if delta.rows <= delta.max_rows else f"over {delta.max_rows:,}"
    shown = [("Changed since" if build else "Embeddings", changed)]
    if build is not None:
        age = (delta.now - build.finished_at).total_seconds() if build.finished_at else 0.0
        recall = "" if build.recall_at_10 is None else f"{build.recall_at_10:.3f}"
        shown = [
            ("In use", f"build {build.id}"),
            ("Pictures", f"{build.rows:,}"),
            ("Recall@10", recall),
            ("Size", size(build.size)),
            ("Age", span(age)),
            *shown,
        ]
    with st.container(horizontal=True):
        for label, value in shown:
            st.metric(label, value, border=True, width=170)


def _growth(life: IndexStatus) -> None:
    """The delta since the page was opened."""
    from app.ui.components.index_charts import delta_chart  # altair takes long to load

    seen: list[tuple[datetime, int]] = st.session_state.get("delta_seen", [])
    seen = [*seen, (life.delta.now, life.delta.rows)][-REMEMBERED:]
    st.session_state["delta_seen"] = seen
    st.subheader("Changed since the index was built", anchor=False)
    st.altair_chart(delta_chart(seen, life.delta), key="delta")
    st.caption(_lines(life))


def _lines(life: IndexStatus) -> str:
    delta = life.delta
    return (
        "Searches see all of it at once: what the index lacks is compared exactly. A worker "
        f"builds anew above {delta.worker_rows:,.0f} changed embeddings, or when the index is old; "
        f"above {delta.max_rows:,} pgvector answers instead of the index."
    )


def _over_time(builds: Sequence[Build], goal: float) -> None:
    from app.ui.components.index_charts import recall_chart, size_chart

    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Recall", anchor=False)
        st.altair_chart(recall_chart(builds, goal), key="recall")
        st.caption(f"The dashed line is the goal: an index below {goal:g} is not published.")
    with right:
        st.subheader("Size", anchor=False)
        st.altair_chart(size_chart(builds), key="size")


def _row(build: Build) -> dict[str, Any]:
    """A build as the table shows it."""
    return {
        "build": build.id,
        "state": build.state,
        "kind": build.kind,
        "pictures": build.rows,
        "size": size(build.size) if build.size else None,
        "recall@10": build.recall_at_10,
        "with filters": build.recall_filtered,
        "seconds": build.seconds,
        "finished": when(build.finished_at),
        "reason": build.reason,
    }
