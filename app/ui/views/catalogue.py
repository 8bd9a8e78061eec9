"""The catalogue page: whether all is well, how much there is, what was loaded and refused."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict
from io import StringIO
from typing import Any

import streamlit as st

from app.bootstrap import App
from app.operations.catalog_stats import (
    CatalogContents,
    CatalogCounts,
    RejectedRow,
    RunSummary,
    ingest_rejects,
    overview,
)
from app.ui.components.health_table import checks
from app.ui.formatting import span, when
from app.ui.shared import plain, sentences, services

SHOWN = 1_000
"""Rejects of a run that are shown; more are in the file to download."""

DOWNLOADED = 100_000
"""Rejects of a run that are in the file at most."""

COUNTS = ("read", "added", "updated", "unchanged", "deleted", "rejected", "images_rejected")


def show() -> None:
    """Draw the page."""
    st.title("Catalogue", anchor=False)
    with sentences("the catalogue page"):
        app = services()
        found = overview(app.engine, app.files, app.settings)
        contents = found.contents
        if contents is not None:
            _counts(contents.counts)
        st.subheader("All is well" if found.status.healthy else "Not all is well", anchor=False)
        st.html(checks(found.status))
        if contents is not None:
            _embedded(contents)
            _ingests(app, contents.runs)


def _counts(counts: CatalogCounts) -> None:
    if not counts.products:
        st.info("The catalogue is empty. Fill it with `lookalike ingest catalogue.csv`.")
        return
    judged = counts.same + counts.different
    shown = (
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
    with st.container(horizontal=True):
        for label, count, meaning in shown:
            st.metric(label, f"{count:,}", help=meaning, border=True, width=170)


def _embedded(contents: CatalogContents) -> None:
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


def _ingests(app: App, runs: Sequence[RunSummary]) -> None:
    st.subheader("What was loaded", anchor=False)
    if not runs:
        st.write("Nothing was loaded yet.")
        return
    st.dataframe([_row(run) for run in runs], hide_index=True, placeholder="")
    refusing = [run for run in runs if run.rejects]
    if not refusing:
        st.write("Nothing was refused in these runs.")
        return
    st.subheader("What was refused", anchor=False)
    chosen = st.selectbox("Run", refusing, format_func=_named, width=600)
    _rejects(ingest_rejects(app.engine, chosen.id, DOWNLOADED), chosen)


def _row(run: RunSummary) -> dict[str, Any]:
    """A run as the table shows it."""
    took = run.report.get("seconds")
    return {
        "run": run.id,
        "began": when(run.started_at),
        "state": run.state,
        "source": run.source,
        "model": run.model,
        "took": None if took is None else span(took),
        **{name.replace("_", " "): run.report.get(name) for name in COUNTS},
        "reason": run.report.get("reason"),
    }


def _named(run: RunSummary) -> str:
    return f"{run.id}: {run.source}, {when(run.started_at)}, {run.rejects:,} refused"


def _rejects(rejects: Sequence[RejectedRow], run: RunSummary) -> None:
    rows = [asdict(reject) for reject in rejects]
    st.dataframe(rows[:SHOWN], hide_index=True, placeholder="")
    if len(rows) > SHOWN:
        st.caption(plain(f"The first {SHOWN:,} of {run.rejects:,} are shown."))
    st.download_button(
        "Download what was refused",
        _csv(rows),
        file_name=f"rejects-{run.id}.csv",
        mime="text/csv",
        icon=":material/download:",
        on_click="ignore",
    )


def _inert(value: Any) -> Any:
    """Text that no spreadsheet takes for a formula."""
    risky = isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{value}" if risky else value


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    file = StringIO()
    writer = csv.DictWriter(file, ("line", "sku", "image", "reason"))
    writer.writeheader()
    writer.writerows({name: _inert(value) for name, value in row.items()} for row in rows)
    return file.getvalue().encode()
