"""Background loops go on after errors and stop promptly; a warning is logged once in a row."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from app.concurrency import BackgroundLoop, BackgroundQueue, RepeatedWarning

LOG = logging.getLogger("lookalike.loop")


class Expected(Exception):
    pass


class Calls:
    """A function for a loop that answers from a list, and knows when the list is at its end."""

    def __init__(self, *answers: str | Exception) -> None:
        self._answers = list(answers)
        self.done = threading.Event()

    def __call__(self) -> str:
        answer = self._answers.pop(0) if self._answers else ""
        if not self._answers:
            self.done.set()
        if isinstance(answer, Exception):
            raise answer
        return answer


def run(function: Callable[[], str], interval_s: float = 0.0) -> BackgroundLoop:
    return BackgroundLoop(
        function, interval_s, name="loop", log=LOG, failure="no luck", expected=(Expected,)
    )


def logged(caplog: pytest.LogCaptureFixture, *answers: str | Exception) -> list[str]:
    calls = Calls(*answers, "")
    with run(calls):
        assert calls.done.wait(300)
    return [record.getMessage() for record in caplog.records]


def test_a_warning_is_logged_once_in_a_row(caplog: pytest.LogCaptureFixture) -> None:
    warning = RepeatedWarning(LOG)
    for message in ("a", "a", "b", "a", "", "a"):
        warning.warn(message)
    warning.clear()
    warning.warn("a")
    assert [record.getMessage() for record in caplog.records] == ["a", "b", "a", "a", "a"]


def test_an_expected_error_is_logged_once_in_a_row_on_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    again = [Expected("two\n  lines"), Expected("two lines")]
    assert logged(caplog, *again, "", *again) == ["no luck: two lines"] * 2


def test_another_error_is_logged_with_its_trace_and_the_loop_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert logged(caplog, ValueError("x"), "a warning") == [
        "the loop failed and will try again",
        "a warning",
    ]
    assert caplog.records[0].exc_info is not None


def test_a_loop_that_waits_stops_at_once() -> None:
    calls = Calls("")
    with run(calls, 3600):
        assert calls.done.wait(300)
        began = time.monotonic()
    assert time.monotonic() - began < 1800, "the pause of an hour was waited for"


FORK = """
import os
from app.concurrency import after_fork_in_child

class Counter:
    count = 0

    def add(self):
        self.count += 1

living, dead = Counter(), Counter()
after_fork_in_child(living.add)
after_fork_in_child(dead.add)
del dead
child = os.fork()
if child == 0:
    os._exit(living.count)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), living.count)
"""


def test_a_forked_child_calls_the_method_of_a_living_object() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("1 0\n", "")


def test_what_is_queued_is_written_together_and_at_the_latest_when_it_is_closed() -> None:
    written: list[list[int]] = []
    queue = BackgroundQueue[int](written.append, most=10, interval_s=3600.0, name="numbers")
    for number in range(3):
        queue.put(number)
    assert written == []
    queue.close()
    assert written == [[0, 1, 2]]


def test_of_more_than_fit_into_a_queue_the_newest_are_kept() -> None:
    written: list[list[int]] = []
    queue = BackgroundQueue[int](written.append, most=2, interval_s=3600.0, name="numbers")
    for number in range(5):
        queue.put(number)
    queue.close()
    assert written == [[3, 4]]


def test_a_queue_is_written_in_the_background() -> None:
    done = threading.Event()
    queue = BackgroundQueue[int](lambda _: done.set(), most=2, interval_s=0.0, name="numbers")
    queue.put(1)
    assert done.wait(300)
    queue.close()
