"""Streamlit's server of the pages."""

from __future__ import annotations

from typing import Any

from streamlit.runtime.state.safe_session_state import SafeSessionState
from streamlit.web import cli


def deliver_every_click() -> None:
    """Let each change from the browser reach its callback before a further change interrupts.

    Streamlit looks for a further change before it takes in what the present one brings. The values
    of widgets come again with the further change; a click does not, and would be lost.
    """

    def take_in(self: SafeSessionState, *args: Any, **kwargs: Any) -> None:
        with self._lock:
            self._state.on_script_will_rerun(*args, **kwargs)

    SafeSessionState.on_script_will_rerun = take_in  # type: ignore[method-assign]


def run() -> None:
    """Serve the pages with the arguments of this process, until a signal ends it."""
    deliver_every_click()
    cli.main(prog_name="streamlit")
