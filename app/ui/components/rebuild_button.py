"""The button that rebuilds the index, and what the rebuild is doing."""

from __future__ import annotations

import streamlit as st

from app.bootstrap import App
from app.index.background_build import BuildProgress
from app.ui.shared import plain
from app.ui.sign_in import welcome


def offer(app: App) -> None:
    """The button, for those who may press it; it does what `lookalike index rebuild` does.

    The build goes on when the page is left, and whoever comes back sees how far it is.
    """
    settings = app.settings
    if settings.page_read_only or not settings.page_rebuild or not welcome():
        return
    running = app.rebuilding.progress.running
    if st.button("Rebuild the index", disabled=running, help="Searches go on meanwhile."):
        app.rebuilding.start()
        st.rerun()
    if running:
        st.fragment(_watch, run_every=1.0)(app)
    else:
        _ended(app.rebuilding.progress)


def _watch(app: App) -> None:
    """The steps so far; the page is drawn anew once it is over."""
    progress = app.rebuilding.progress
    if not progress.running:
        st.rerun()
    with st.status(plain(f"{progress.steps[-1]} …"), expanded=True):
        for step in progress.steps[:-1]:
            st.write(plain(step))


def _ended(progress: BuildProgress) -> None:
    if progress.error is not None:
        st.warning(plain(progress.error))
    elif progress.build is not None and progress.build.state == "published":
        build = progress.build
        st.success(f"Build {build.id}: {build.rows:,} pictures in {build.seconds:.1f} s.")
    elif progress.build is not None:
        build = progress.build
        st.warning(plain(f"Build {build.id} was not published: {build.reason}."))
