"""The catalogue page: counts, health checks, embeddings, ingests and rejects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import streamlit as st

from app.bootstrap import App
from app.operations.catalog_stats import (
    NEWEST_PICTURES,
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
from app.ui.engine_texts import engine_text
from app.ui.formatting import escape_markdown, format_duration, format_number, format_time
from app.ui.shared import errors_as_text, services
from app.ui.translation import N_, _, language, ngettext

MAX_SHOWN = 1_000
"""Rejects of a run that the table shows; the download has more."""

MAX_DOWNLOADED = 100_000
"""Maximum number of rejects in the download."""

CACHE_S = 60
"""Seconds for which all visitors see the same overview: it counts every table."""

RUN_COUNTS = {
    "read": N_("read"),
    "added": N_("added"),
    "updated": N_("updated"),
    "unchanged": N_("unchanged"),
    "deleted": N_("deleted"),
    "rejected": N_("rejected"),
    "images_rejected": N_("images rejected"),
}

REJECT_COLUMNS = {"line": N_("line"), "sku": "SKU", "image": N_("image"), "reason": N_("reason")}
"""Fields of a reject, with their titles in the table."""


def show() -> None:
    """Draw the page."""
    st.title(_("Catalogue"), anchor=False)
    with errors_as_text("the catalogue page"):
        app = services()
        with st.spinner(_("Counting …")):
            stats, counted_at = cached_overview()
        st.caption(
            _("As of {time}; counted again after {seconds} seconds.").format(
                time=format_time(counted_at), seconds=CACHE_S
            )
        )
        contents = stats.contents
        if contents is not None:
            _draw_counts(contents.counts)
        state = _("Healthy") if stats.status.healthy else _("Needs attention")
        st.subheader(state, anchor=False)
        with st.container(key="checks"):
            st.html(checks_html(stats.status))
        if contents is not None:
            _draw_embeddings(contents)
            _draw_ingests(app, contents.runs)


@st.cache_resource(ttl=CACHE_S, show_spinner=False)
def cached_overview() -> tuple[CatalogOverview, datetime]:
    """The overview, read at most once in CACHE_S by this process, and when it was read."""
    app = services()
    return overview(app.engine, app.files, app.settings), datetime.now(UTC)


def _draw_counts(counts: CatalogCounts) -> None:
    if not counts.products:
        st.info(_("The catalogue is empty. Fill it with `lookalike ingest catalogue.csv`."))
        return
    judged = counts.same + counts.different
    metrics = [
        (_("Products"), _rows(counts.products, counts), _("rows of the catalogue, one a sku")),
        (_("Pictures"), _rows(counts.pictures, counts),
         _("each stored once, however many products show it")),
        (_("Not embedded"), format_number(counts.without_embedding),
         _("pictures that no search by picture finds")),
        *_whole_pass_metrics(counts),
        (_("Pairs judged"), format_number(judged),
         _("{same} the same, {different} different").format(
             same=format_number(counts.same), different=format_number(counts.different))),
    ]  # fmt: skip
    with st.container(key="figures", horizontal=True):
        for label, count, meaning in metrics:
            st.metric(label, count, help=meaning, border=True, width=170)
    if counts.estimated:
        st.caption(_("A catalogue of this size is not counted: the numbers of rows are estimates, "
                     "and embeddings are looked for among the newest {number} pictures. "
                     "`lookalike check` reads all rows.").format(
                         number=format_number(NEWEST_PICTURES)))  # fmt: skip


def _rows(number: int, counts: CatalogCounts) -> str:
    """A number of rows, which may be an estimate."""
    written = format_number(number)
    return _("about {number}").format(number=written) if counts.estimated else written


def _whole_pass_metrics(counts: CatalogCounts) -> list[tuple[str, str, str]]:
    """The metrics that only a pass over all rows tells; none where they are not known."""
    without, shared, groups = counts.without_picture, counts.shared_pictures, counts.word_groups
    if without is None or shared is None or groups is None:
        return []
    return [
        (_("Without a picture"), format_number(without), _("products that only words find")),
        (_("Sharing a picture"), format_number(counts.sharing or 0),
         _("products that show one of {count} pictures together with others").format(
             count=format_number(shared))),
        (_("Same words"), format_number(counts.same_words or 0),
         _("products in {count} groups where only year, size or spelling differ").format(
             count=format_number(groups))),
    ]  # fmt: skip


def _draw_embeddings(contents: CatalogContents) -> None:
    st.subheader(_("Embeddings"), anchor=False)
    rows = [
        {
            _("model"): each.model,
            _("in use"): _("yes") if each.active else _("no"),
            _("dimensions"): each.dim,
            _("embeddings"): each.embeddings,
        }
        for each in contents.embedded
    ]
    st.dataframe(rows, hide_index=True, width="content")


def _draw_ingests(app: App, runs: Sequence[RunSummary]) -> None:
    st.subheader(_("Ingests"), anchor=False)
    if not runs:
        st.write(_("No ingest yet."))
        return
    st.dataframe([_table_row(run) for run in runs], hide_index=True, placeholder="")
    with_rejects = [run for run in runs if run.rejects]
    if not with_rejects:
        st.write(_("No rows were refused in these runs."))
        return
    st.subheader(_("Refused rows"), anchor=False)
    chosen = st.selectbox(
        _("Run"), with_rejects, format_func=_run_label, width=600, key=f"run-{language()}"
    )
    _draw_rejects(ingest_rejects(app.engine, chosen.id, MAX_DOWNLOADED), chosen)


def _table_row(run: RunSummary) -> dict[str, Any]:
    seconds = run.report.get("seconds")
    return {
        _("run"): run.id,
        _("began"): format_time(run.started_at),
        _("state"): engine_text(run.state),
        _("source"): run.source,
        _("model"): run.model,
        _("took"): None if seconds is None else format_duration(seconds),
        **{_(title): run.report.get(name) for name, title in RUN_COUNTS.items()},
        _("reason"): engine_text(run.report.get("reason") or "") or None,
    }


def _run_label(run: RunSummary) -> str:
    return f"{run.id}: {run.source}, {format_time(run.started_at)}, {refused_text(run.rejects)}"


def refused_text(rows: int) -> str:
    """How many rows were refused: "1 row refused"."""
    text = ngettext("{count} row refused", "{count} rows refused", rows)
    return text.format(count=format_number(rows))


def _draw_rejects(rejects: Sequence[RejectedRow], run: RunSummary) -> None:
    rows = [asdict(reject) for reject in rejects]
    shown = [
        {_(title): row[name] for name, title in REJECT_COLUMNS.items()}
        | {_(REJECT_COLUMNS["reason"]): engine_text(row["reason"])}
        for row in rows[:MAX_SHOWN]
    ]
    st.dataframe(shown, hide_index=True, placeholder="")
    if len(rows) > MAX_SHOWN:
        text = _("The first {shown} of {count} are shown.").format(
            shown=format_number(MAX_SHOWN), count=format_number(run.rejects)
        )
        st.caption(escape_markdown(text))
    st.download_button(
        _("Download refused rows"),
        csv_bytes(tuple(REJECT_COLUMNS), rows),
        file_name=f"rejects-{run.id}.csv",
        mime="text/csv",
        icon=":material/download:",
        on_click="ignore",
    )
