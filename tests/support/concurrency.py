"""Concurrency helpers: threads that start together, and an admission control without free slots."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from app.search.admission import Admission

T = TypeVar("T")
SOON_S = 300.0


def run_concurrently(calls: Sequence[Callable[[], T]]) -> list[T | Exception]:
    """The result or exception of each call, in order; each runs in a separate thread."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T | Exception:
        start.wait(SOON_S)
        try:
            return call()
        except Exception as exc:
            return exc

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


@contextmanager
def slots_occupied(admission: Admission) -> Iterator[None]:
    """All slots of the admission control are occupied inside the block."""
    end, taken = threading.Event(), threading.Barrier(admission.places + 1)

    def take() -> None:
        with admission.admitted():
            taken.wait(SOON_S)
            end.wait(SOON_S)

    threads = [threading.Thread(target=take) for _ in range(admission.places)]
    for thread in threads:
        thread.start()
    taken.wait(SOON_S)
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join()


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds."""
    pause = threading.Event()
    for _ in range(int(SOON_S / 0.005)):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("the condition did not become true")


def in_a_process(function: Callable[[], object]) -> None:
    """Call a function of a test module in the main thread of a new process.

    For tests of Ctrl-C: a signal to this process could reach the test runner.
    """
    call = f"import {function.__module__} as module; module.{function.__name__}()"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", call],
        capture_output=True, text=True, timeout=SOON_S,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
