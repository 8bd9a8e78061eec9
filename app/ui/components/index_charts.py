"""Charts of the index page: size of the delta, size and recall of the builds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import altair as alt

from app.index.status import DeltaStatus
from app.types import Build
from app.ui.translation import _, locale

LayeredChart = alt.LayerChart | alt.FacetChart

HEIGHT = 220
"""Height of a chart in pixels."""

MIN_TIME_SPAN = timedelta(minutes=1)
"""Shortest time axis of the delta chart."""

GREY, RED = "#888", "#d9480f"
COLOURS = ["#2f80ed", "#c98a00"]
"""Line colours that are visible on white and on black."""


def delta_chart(history: Sequence[tuple[datetime, int]], delta: DeltaStatus) -> LayeredChart:
    """The size of the delta (rows) while this page was open, with its thresholds."""
    points = [{"time": moment.isoformat(), "rows": rows} for moment, rows in history]
    top = 1.25 * max(delta.worker_rows, *(rows for _, rows in history), 10)
    lines = [
        {"rows": rows, "line": line}
        for rows, line in (
            (delta.max_rows, _("pgvector answers above")),
            (delta.worker_rows, _("above this line a worker rebuilds")),
        )
        if rows <= top
    ]
    since, until = history[0][0], max(history[-1][0], history[0][0] + MIN_TIME_SPAN)
    at = alt.Y(
        "rows:Q", title=_("changed embeddings"), scale=alt.Scale(domain=[0, top], nice=False)
    )
    moments = alt.Scale(domain=[since.isoformat(), until.isoformat()])
    axis = alt.Axis(format="%H:%M:%S", tickCount=5, title=None)
    grown = alt.Chart(_data(points)).mark_line(point=True)
    rules = alt.Chart(_data(lines)).mark_rule(strokeDash=[4, 4], color=GREY)
    names = alt.Chart(_data(lines)).mark_text(align="left", dx=4, dy=-7, color=GREY, fontSize=12)
    chart: LayeredChart = (
        alt.layer(
            grown.encode(x=alt.X("time:T", scale=moments, axis=axis), y=at),
            rules.encode(y=at),
            names.encode(y=at, x=alt.value(0), text="line:N"),
        )
        .properties(height=HEIGHT)
        .configure(locale=_locale())
    )
    return chart


def size_chart(builds: Sequence[Build]) -> alt.Chart:
    """The file size of each build in MB, oldest first."""
    chart: alt.Chart = (
        _chart([build for build in builds if build.size])
        .mark_bar(size=max(4, min(40, 400 // len(builds))))
        .encode(
            x=alt.X("build:O", title=_("build"), axis=alt.Axis(labelAngle=0)),
            y=alt.Y("size:Q", title="MB"),
            tooltip=["build:O", "kind:N", "rows:Q", alt.Tooltip("size:Q", format=".1f")],
        )
        .configure(locale=_locale())
    )
    return chart


def recall_chart(builds: Sequence[Build], goal: float) -> LayeredChart:
    """Recall@10 of each build, of all searches and of filtered ones, with the goal as a line."""
    measured = _chart([build for build in builds if build.recall_at_10 is not None])
    legend = alt.Legend(orient="bottom")
    recall = (
        measured.transform_fold([_("all searches"), _("with filters")], as_=["which", "recall"])
        .transform_filter("isValid(datum.recall)")
        .mark_line(point=True)
        .encode(
            x=alt.X("build:O", title=_("build"), axis=alt.Axis(labelAngle=0)),
            y=alt.Y("recall:Q", title=_("recall@10"), scale=alt.Scale(zero=False)),
            color=alt.Color("which:N", title=None, legend=legend, scale=alt.Scale(range=COLOURS)),
            shape=alt.Shape("which:N", title=None),
            tooltip=["build:O", "which:N", alt.Tooltip("recall:Q", format=".4f")],
        )
    )
    line = alt.Chart(_data([{"goal": goal}])).mark_rule(strokeDash=[4, 4], color=RED)
    chart: LayeredChart = (
        alt.layer(recall, line.encode(y="goal:Q"))
        .properties(height=HEIGHT)
        .configure(locale=_locale())
    )
    return chart


def _chart(builds: Sequence[Build]) -> alt.Chart:
    rows: list[dict[str, Any]] = [
        {
            "build": build.id,
            "kind": build.kind,
            "rows": build.rows,
            "size": build.size / 1e6,
            _("all searches"): build.recall_at_10,
            _("with filters"): build.recall_filtered,
        }
        for build in reversed(builds)
    ]
    return alt.Chart(_data(rows), height=HEIGHT)


def _locale() -> dict[str, Any]:
    """How charts write numbers, in the terms of d3-format."""
    signs = locale().number_symbols["latn"]
    return {
        "number": {
            "decimal": signs["decimal"], "thousands": signs["group"], "grouping": [3],
            "currency": ["", ""],
        }
    }  # fmt: skip


def _data(rows: Sequence[Mapping[str, Any]]) -> alt.Data:
    return alt.Data(values=rows)  # type: ignore[no-untyped-call]
