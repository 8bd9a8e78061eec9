"""What all pages share: the services, text shown letter for letter, errors as sentences."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from app.bootstrap import App
from app.errors import LookalikeError
from app.operations.health import Liveness
from app.operations.metrics_server import MetricsServer

JOINED = re.compile(r"(?<=[-<>=~])(?=[-<>=~])|(?<=:)(?=//)|(?<=www)(?=\.)|(?=@)", re.IGNORECASE)


_log = logging.getLogger("lookalike.page")


@st.cache_resource(show_spinner="Starting …")
def services() -> App:
    """The services all sessions share; made once in this process."""
    app = App()
    serve_metrics(app)
    return app


def plain(words: str) -> str:
    """Any text as Markdown that shows it letter for letter.

    What Streamlit would make an arrow, a dash or a link of after Markdown is parted by spaces of no
    width.
    """
    whole = JOINED.sub(chr(0x200B), " ".join(words.split()))
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", whole)


@contextmanager
def sentences(what: str) -> Iterator[None]:
    """Whatever goes wrong inside becomes a sentence on the page, and the page goes on.

    `what` names it in the log.
    """
    try:
        yield
    except LookalikeError as exc:
        st.error(plain(str(exc)))
    except Exception:
        _log.exception("%s failed", what)
        st.error("Something went wrong here; it was logged. Please try again.")


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
