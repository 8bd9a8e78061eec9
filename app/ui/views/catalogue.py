"""The catalogue page: counts, health checks, embeddings, ingests and rejects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import streamlit as st

from app.bootstrap import App
from app.operations.catalog_stats import (
    CatalogContents,
    CatalogCounts,
    CatalogOverview,
    RejectedRow,
    RunSummary,
    ingest_rejects,
    overview,
)
from app.ui.components.health_table import checks_html
from app.ui.csv_export import csv_bytes
from app.ui.formatting import escape_markdown, format_duration, format_time
from app.ui.shared import errors_as_text, services

MAX_SHOWN = 1_000
"""Rejects of a run that the table shows; the download has more."""

MAX_DOWNLOADED = 100_000
"""Maximum number of rejects in the download."""

CACHE_S = 60
"""Seconds for which all visitors see the same overview: it counts every table."""

RUN_COUNTS = ("read", "added", "updated", "unchanged", "deleted", "rejected", "images_rejected")


def show() -> None:
    """Draw the page."""
    st.title("Catalogue", anchor=False)
    with errors_as_text("the catalogue page"):
        app = services()
        stats, counted_at = cached_overview()
        st.caption(f"As of {format_time(counted_at)}; counted again after {CACHE_S} seconds.")
        contents = stats.contents
        if contents is not None:
            _draw_counts(contents.counts)
        st.subheader("Healthy" if stats.status.healthy else "Needs attention", anchor=False)
        with st.container(key="checks"):
            st.html(checks_html(stats.status))
        if contents is not None:
            _draw_embeddings(contents)
            _draw_ingests(app, contents.runs)


@st.cache_resource(ttl=CACHE_S, show_spinner="Counting …")
def cached_overview() -> tuple[CatalogOverview, datetime]:
    """The overview, read at most once in CACHE_S by this process, and when it was read."""
    app = services()
    return overview(app.engine, app.files, app.settings), datetime.now(UTC)


def _draw_counts(counts: CatalogCounts) -> None:
    if not counts.products:
        st.info("The catalogue is empty. Fill it with `lookalike ingest catalogue.csv`.")
        return
    judged = counts.same + counts.different
    metrics = (
        ("Products", counts.products, "rows of the catalogue, one a sku"),
        ("Pictures", counts.pictures, "each stored once, however many products show it"),
        ("Not embedded", counts.without_embedding, "pictures that no search by picture finds"),
        ("Without a picture", counts.without_picture, "products that only words find"),
        ("Sharing a picture", counts.sharing,
         f"products that show one of {counts.shared_pictures:,} pictures together with others"),
        ("Same words", counts.same_words,
         f"products in {counts.word_groups:,} groups where only year, size or spelling differ"),
        ("Pairs judged", judged, f"{counts.same:,} the same, {counts.different:,} different"),
    )  # fmt: skip
    with st.container(key="figures", horizontal=True):
        for label, count, meaning in metrics:
            st.metric(label, f"{count:,}", help=meaning, border=True, width=170)


def _draw_embeddings(contents: CatalogContents) -> None:
    st.subheader("Embeddings", anchor=False)
    rows = [
        {
            "model": each.model,
            "in use": "yes" if each.active else "no",
            "dimensions": each.dim,
            "embeddings": each.embeddings,
        }
        for each in contents.embedded
    ]
    st.dataframe(rows, hide_index=True, width="content")


def _draw_ingests(app: App, runs: Sequence[RunSummary]) -> None:
    st.subheader("Ingests", anchor=False)
    if not runs:
        st.write("No ingest yet.")
        return
    st.dataframe([_table_row(run) for run in runs], hide_index=True, placeholder="")
    with_rejects = [run for run in runs if run.rejects]
    if not with_rejects:
        st.write("No rows were refused in these runs.")
        return
    st.subheader("Refused rows", anchor=False)
    chosen = st.selectbox("Run", with_rejects, format_func=_run_label, width=600)
    _draw_rejects(ingest_rejects(app.engine, chosen.id, MAX_DOWNLOADED), chosen)


def _table_row(run: RunSummary) -> dict[str, Any]:
    seconds = run.report.get("seconds")
    return {
        "run": run.id,
        "began": format_time(run.started_at),
        "state": run.state,
        "source": run.source,
        "model": run.model,
        "took": None if seconds is None else format_duration(seconds),
        **{name.replace("_", " "): run.report.get(name) for name in RUN_COUNTS},
        "reason": run.report.get("reason"),
    }


def _run_label(run: RunSummary) -> str:
    return f"{run.id}: {run.source}, {format_time(run.started_at)}, {refused_text(run.rejects)}"


def refused_text(rows: int) -> str:
    """How many rows were refused: "1 row refused"."""
    return f"{rows:,} row{'s' * (rows != 1)} refused"


def _draw_rejects(rejects: Sequence[RejectedRow], run: RunSummary) -> None:
    rows = [asdict(reject) for reject in rejects]
    st.dataframe(rows[:MAX_SHOWN], hide_index=True, placeholder="")
    if len(rows) > MAX_SHOWN:
        st.caption(escape_markdown(f"The first {MAX_SHOWN:,} of {run.rejects:,} are shown."))
    st.download_button(
        "Download refused rows",
        csv_bytes(("line", "sku", "image", "reason"), rows),
        file_name=f"rejects-{run.id}.csv",
        mime="text/csv",
        icon=":material/download:",
        on_click="ignore",
    )
