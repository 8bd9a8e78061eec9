"""The button that rebuilds the index, and the progress of the rebuild."""

from __future__ import annotations

import streamlit as st

from app.bootstrap import App
from app.index.background_build import BuildProgress
from app.ui.engine_texts import engine_text
from app.ui.formatting import escape_markdown, format_decimal, format_number
from app.ui.sign_in import may_change
from app.ui.translation import _


def show(app: App) -> None:
    """Draw the button, if the user may rebuild; it does what `lookalike index rebuild` does.

    The build continues when the page is closed, and every session sees its progress.
    """
    settings = app.settings
    if settings.page_read_only or not settings.page_rebuild or not may_change():
        return
    running = app.background_build.progress.running
    if st.button(_("Rebuild the index"), disabled=running, help=_("Searches go on meanwhile.")):
        app.background_build.start()
        st.rerun()
    if running:
        st.fragment(_draw_progress, run_every=1.0)(app)
    else:
        _draw_result(app.background_build.progress)


def _draw_progress(app: App) -> None:
    """Draw the steps so far; when the build has ended, redraw the whole page."""
    progress = app.background_build.progress
    if not progress.running:
        st.rerun()
    # As a context manager it would end as complete, with a tick.
    step = engine_text(progress.steps[-1])
    shown = st.status(escape_markdown(f"{step} …"), expanded=True, state="running")
    for step in progress.steps[:-1]:
        shown.write(f":material/check: {escape_markdown(engine_text(step))}")


def _draw_result(progress: BuildProgress) -> None:
    if progress.error is not None:
        st.warning(escape_markdown(engine_text(progress.error)))
    elif progress.build is not None and progress.build.state == "published":
        build = progress.build
        text = _("Build {number}: {pictures} pictures in {seconds} s.")
        st.success(
            text.format(
                number=build.id, pictures=format_number(build.rows),
                seconds=format_decimal(build.seconds, 1),
            )
        )  # fmt: skip
    elif progress.build is not None:
        build = progress.build
        text = _("Build {number} was not published: {reason}.")
        st.warning(
            escape_markdown(text.format(number=build.id, reason=engine_text(build.reason or "")))
        )
