"""Services and error handling that all pages share."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from app.bootstrap import App
from app.errors import LookalikeError
from app.operations.health import Liveness
from app.operations.metrics_server import MetricsServer
from app.ui.formatting import escape_markdown

_log = logging.getLogger("lookalike.page")

_prepared: list[App] = []
"""The services that `prepare` created, until `services` takes them."""


@st.cache_resource(show_spinner="Starting …")
def services() -> App:
    """The services of all sessions, created once in this process."""
    app = _prepared.pop() if _prepared else _with_metrics()
    app.warm_soon()
    return app


def prepare() -> None:
    """Create the services of this process and serve its metrics before the first visitor."""
    _prepared.append(_with_metrics())


def _with_metrics() -> App:
    app = App()
    _ = app.admission  # its gauges are there before a search
    serve_metrics(app)
    return app


def serve_metrics(app: App) -> MetricsServer | None:
    """Serve metrics and health of this process; if that fails, log it and return None."""
    settings = app.settings
    try:
        liveness = Liveness(app.engine)
        return MetricsServer(
            settings.metrics_host, settings.page_metrics_port, app.metrics.registry, liveness.status
        )
    except LookalikeError as exc:
        _log.warning("%s", exc)
        return None


@contextmanager
def errors_as_text(what: str) -> Iterator[None]:
    """Show an exception of the block as a message on the page, which goes on after it.

    `what` names the block in the log.
    """
    try:
        yield
    except LookalikeError as exc:
        st.error(escape_markdown(str(exc)))
    except Exception:
        _log.exception("%s failed", what)
        st.error("Something went wrong here; it was logged. Please try again.")
