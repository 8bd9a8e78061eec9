"""Callbacks of the page that another change from the browser does not cut short."""

from __future__ import annotations

import os
from typing import Any
from unittest.mock import Mock

import pytest
import streamlit as st
from streamlit.proto.WidgetStates_pb2 import WidgetStates
from streamlit.runtime.scriptrunner import RerunException
from streamlit.runtime.scriptrunner_utils.script_requests import RerunData
from streamlit.runtime.state.safe_session_state import SafeSessionState

from app.cli.serve_page import serve
from app.ui.search_form import session_state
from app.ui.search_form.state import SearchFormState, cleared
from app.ui.server import deliver_every_click
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
    assert (done, raised.value.rerun_data) == (["cleared"], other.rerun_data)
    callback("again")
    assert done == ["cleared", "again"]


def test_of_several_changes_during_a_callback_no_click_is_lost() -> None:
    click, words = WidgetStates(), WidgetStates()
    click.widgets.add(id="clear", trigger_value=True)
    words.widgets.add(id="words", string_value="lamp")
    pending = [RerunException(RerunData(widget_states=each)) for each in (words, click)]

    @uninterrupted
    def callback() -> None:
        if pending:
            raise pending.pop()

    with pytest.raises(RerunException) as raised:
        callback()
    delivered = raised.value.rerun_data.widget_states
    assert delivered is not None and {each.id for each in delivered.widgets} == {"clear", "words"}


def test_a_click_reaches_its_callback_when_another_change_is_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unchanged = SafeSessionState.on_script_will_rerun
    monkeypatch.setattr(SafeSessionState, "on_script_will_rerun", unchanged)  # put back at the end
    state, click = Mock(), WidgetStates()
    session = SafeSessionState(state, Mock(side_effect=RerunException(RerunData())))
    deliver_every_click()
    session.on_script_will_rerun(click, is_history_navigation=False)
    state.on_script_will_rerun.assert_called_once_with(click, is_history_navigation=False)


def test_a_further_change_does_not_stop_the_run_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = Mock()
    monkeypatch.setattr(os, "execv", started)
    serve("localhost", 8501)
    assert "--runner.fastReruns=false" in started.call_args.args[1]


def test_a_widget_that_was_replaced_changes_nothing_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that words interrupt does not draw the widgets again that "Clear filters" replaced, and
    the values of the former ones arrive once more with the words."""
    session: dict[str, Any] = {session_state.FORM: SearchFormState(brand=("Kestrel",))}
    monkeypatch.setattr(st, "session_state", session)
    former = session_state.bound("brand")
    session_state.update(**cleared())
    session |= {former["key"]: ["Kestrel"], "search_words": "lamp"}
    former["on_change"](*former["args"])
    words = session_state.bound("words")
    words["on_change"](*words["args"])
    assert session_state.current() == SearchFormState(words="lamp")
    present = session_state.bound("brand")
    session[present["key"]] = ["Alder"]
    present["on_change"](*present["args"])
    assert session_state.current().brand == ("Alder",)
