"""Callbacks of the page that another change from the browser does not cut short."""

from __future__ import annotations

import pytest
from streamlit.runtime.scriptrunner import RerunException
from streamlit.runtime.scriptrunner_utils.script_requests import RerunData

from app.ui.shared import uninterrupted


def test_a_callback_runs_whole_and_the_other_change_follows() -> None:
    """Streamlit raises at the first access to the session after the change arrived, once."""
    other = RerunException(RerunData())
    pending, done = [other], list[str]()

    @uninterrupted
    def callback(name: str) -> None:
        if pending:
            raise pending.pop()
        done.append(name)

    with pytest.raises(RerunException) as raised:
        callback("cleared")
    assert (done, raised.value) == (["cleared"], other)
    callback("again")
    assert done == ["cleared", "again"]
