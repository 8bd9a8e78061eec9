"""Admission: the limit, the order of arrival, and the timeout."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.errors import Busy
from app.search.admission import Admission
from support.concurrency import in_a_process, run_concurrently, slots_occupied, wait_until


def test_no_more_run_at_a_time_than_there_are_places() -> None:
    admission, lock = Admission(3, 30.0), threading.Lock()
    running, most = 0, 0

    def run() -> None:
        nonlocal running, most
        with admission.admitted():
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.005)
            with lock:
                running -= 1

    assert run_concurrently([run] * 40) == [None] * 40
    assert most == 3 and (admission.running, admission.waiting) == (0, 0)


def test_places_are_given_in_the_order_of_arrival() -> None:
    admission, order = Admission(1, 30.0), []

    def run(number: int) -> None:
        with admission.admitted():
            order.append(number)

    with ThreadPoolExecutor(10) as pool, slots_occupied(admission):
        for number in range(10):
            pool.submit(run, number)
            wait_until(lambda number=number: admission.waiting == number + 1)
    assert order == list(range(10))


def test_a_caller_that_waits_too_long_is_refused_with_advice() -> None:
    refused: list[int] = []
    admission = Admission(2, 0.05, lambda: refused.append(1))
    with slots_occupied(admission):
        began = time.monotonic()
        with (
            pytest.raises(Busy, match=r"2 are running.*waited 0.05 s.*Try again"),
            admission.admitted(),
        ):
            pytest.fail("there was no place")
        assert 0.05 <= time.monotonic() - began < 300
    assert refused == [1]


def test_a_refused_caller_occupies_no_place() -> None:
    admission = Admission(1, 0.0)
    with slots_occupied(admission):
        for _ in range(3):
            with pytest.raises(Busy), admission.admitted():
                pass
        assert (admission.running, admission.waiting) == (1, 0)
    for _ in range(3):
        with admission.admitted() as waited_s:
            assert waited_s == 0.0 and admission.running == 1
    assert admission.running == 0


def test_the_seconds_waited_are_returned() -> None:
    admission, told = Admission(1, 30.0), []

    def run() -> None:
        with admission.admitted() as waited_s:
            told.append(waited_s)

    with slots_occupied(admission):
        thread = threading.Thread(target=run)
        thread.start()
        wait_until(lambda: admission.waiting)
        time.sleep(0.05)
    thread.join()
    assert 0.05 <= told[0] < 30


def test_a_search_within_a_search_needs_no_second_place() -> None:
    admission = Admission(1, 0.0)
    with admission.admitted():
        with admission.admitted():
            assert admission.running == 1
        assert admission.running == 1
    assert admission.running == 0


def test_an_error_inside_frees_the_place() -> None:
    admission = Admission(1, 0.0)
    for _ in range(2):
        with pytest.raises(ValueError), admission.admitted():
            raise ValueError
    assert admission.running == 0


def test_an_interrupted_waiter_loses_no_place() -> None:
    in_a_process(interrupted)


def interrupted() -> None:
    """Ctrl-C reaches the main thread."""
    admission = Admission(1, 30.0)
    main = threading.main_thread().ident
    assert main is not None
    with slots_occupied(admission):
        timer = threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt), admission.admitted():
            pass
        assert admission.waiting == 0
    with admission.admitted():
        assert admission.running == 1
