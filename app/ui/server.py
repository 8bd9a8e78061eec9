"""Streamlit's server of the pages, whose metrics and health are served from its start on."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st
from starlette.middleware import Middleware
from streamlit.runtime.state.safe_session_state import SafeSessionState

from app.ui.page_files import PageFiles
from app.ui.shared import prepare

SCRIPT = Path(__file__).with_name("main.py")
"""The script that Streamlit runs for each page."""


def deliver_every_click() -> None:
    """Let each change from the browser reach its callback before a further change interrupts.

    Streamlit looks for a further change before it takes in what the present one brings. The values
    of widgets come again with the further change; a click does not, and would be lost.
    """

    def take_in(self: SafeSessionState, *args: Any, **kwargs: Any) -> None:
        with self._lock:
            self._state.on_script_will_rerun(*args, **kwargs)

    SafeSessionState.on_script_will_rerun = take_in  # type: ignore[method-assign]


def options(arguments: Sequence[str]) -> dict[str, Any]:
    """The options of Streamlit from arguments such as `--server.port=8501`: numbers and truth
    values as JSON, all else as text."""
    pairs = (argument.removeprefix("--").partition("=") for argument in arguments)
    return {name: _value(text) for name, _, text in pairs}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def serve(arguments: Sequence[str]) -> None:
    """Serve the pages until a signal stops the process."""
    app = st.App(SCRIPT, middleware=[Middleware(PageFiles)])
    app.run(config=options(arguments))


if __name__ == "__main__":
    prepare()
    deliver_every_click()
    serve(sys.argv[1:])
