"""What the page offers to those who run it: its metrics, and a button that rebuilds the index."""

from __future__ import annotations

import logging
from collections.abc import Callable

import streamlit as st

from app.bootstrap import App
from app.config import Settings
from app.errors import LookalikeError
from app.liveness import Liveness
from app.metrics_server import MetricsServer

_log = logging.getLogger("lookalike.page")


def serve_metrics(app: App) -> MetricsServer | None:
    """Serve this process's metrics and health; a page without them is better than no page."""
    settings = app.settings
    try:
        liveness = Liveness(app.engine)
        return MetricsServer(
            settings.metrics_host, settings.page_metrics_port, app.metrics.registry, liveness.status
        )
    except LookalikeError as exc:
        _log.warning("%s", exc)
        return None


def offer_rebuild(services: Callable[[], App], plain: Callable[[str], str]) -> None:
    """The button, unless the operator wants none; it does what `lookalike index rebuild` does.

    `plain` makes any text Markdown that shows it letter for letter.
    """
    if not Settings().page_rebuild:
        return
    with st.expander("Index"):
        if st.button("Rebuild the index", help="Searches go on meanwhile."):
            _rebuild(services, plain)


def _rebuild(services: Callable[[], App], plain: Callable[[str], str]) -> None:
    try:
        with st.spinner("Building …"):
            build = services().indexer.rebuild()
    except LookalikeError as exc:
        st.warning(plain(str(exc)))
        return
    except Exception:
        _log.exception("a rebuild failed")
        st.error("Something went wrong here; it was logged. Please try again.")
        return
    if build.state == "published":
        st.success(f"Build {build.id}: {build.rows} pictures in {build.seconds:.1f} s.")
    else:
        st.warning(plain(f"Build {build.id} was not published: {build.reason}."))
