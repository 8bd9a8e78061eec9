"""Services and error handling that all pages share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec

import streamlit as st
from streamlit.runtime.scriptrunner import RerunException
from streamlit.runtime.scriptrunner_utils.script_requests import (
    ScriptRequests,
    ScriptRequestType,
)

from app.bootstrap import App
from app.errors import LookalikeError
from app.operations.health import Liveness
from app.operations.metrics_server import MetricsServer
from app.ui.engine_texts import engine_text
from app.ui.formatting import escape_markdown
from app.ui.translation import _

_log = logging.getLogger("lookalike.page")

P = ParamSpec("P")

_prepared: list[App] = []
"""The services that `prepare` created, until `services` takes them."""


@st.cache_resource(show_spinner=False)
def services() -> App:
    """The services of all sessions, created once in this process."""
    app = _prepared.pop() if _prepared else _with_metrics()
    app.warm_soon()  # nothing could be loaded before there were tables, for instance
    return app


def prepare() -> App:
    """Create the services of this process, serve its metrics and load the model before the first
    visitor."""
    app = _with_metrics()
    app.warm_soon()
    _prepared.append(app)
    return app


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


def uninterrupted(callback: Callable[P, None]) -> Callable[P, None]:
    """A callback that a further click does not cut short; it must be safe to run twice.

    While a callback runs, each access to `st.session_state` raises RerunException if the browser
    has sent another change meanwhile, and the rest of the callback is lost. The exception is that
    other change, so it is raised after the callback has run whole; several are merged as Streamlit
    merges changes that wait, so that no click among them is lost.
    """

    @wraps(callback)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        others = ScriptRequests()
        while True:
            try:
                callback(*args, **kwargs)
                break
            except RerunException as exc:
                others.request_rerun(exc.rerun_data)
        waiting = others.on_scriptrunner_ready()
        if waiting.type is ScriptRequestType.RERUN:
            raise RerunException(waiting.rerun_data)

    return run


@contextmanager
def errors_as_text(what: str) -> Iterator[None]:
    """Show an exception of the block as a message on the page, which goes on after it.

    `what` names the block in the log.
    """
    try:
        yield
    except LookalikeError as exc:
        st.error(escape_markdown(engine_text(str(exc))))
    except Exception:
        _log.exception("%s failed", what)
        st.error(_("Something went wrong here; it was logged. Please try again."))
