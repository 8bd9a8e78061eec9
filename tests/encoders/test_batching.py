"""What several want of one encoder at the same time: one batch, and to each what is his."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from app.encoders.batching import Batcher, BatcherPool
from app.types import Vectors
from support.colours import ColourEncoder
from support.crowd import in_a_process, until

SIZE = 8


class Slow:
    """Encodes numbers as themselves, when it is allowed to; odd ones over 100 it cannot."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.batches: list[list[int]] = []

    def encode(self, numbers: Sequence[int]) -> Vectors:
        self.batches.append(list(numbers))
        self.begun.set()
        assert self.go.wait(30)
        for number in numbers:
            if number > 1000:
                raise KeyboardInterrupt
            if number > 100 and number % 2:
                raise ValueError(f"not {number}")
        return np.array(numbers, dtype=np.float32)[:, np.newaxis]


class Crowd:
    """Callers in threads of their own, the first of whom is at work until `go`."""

    def __init__(self, lanes: int = 1) -> None:
        self.slow = Slow()
        self.together = Batcher(self.slow.encode, most=SIZE, lanes=lanes)
        self.pool = ThreadPoolExecutor(40)
        self.asked = [self.ask(0)]
        assert self.slow.begun.wait(30)

    def ask(self, *numbers: int) -> Future[list[float]]:
        return self.pool.submit(lambda: self.together.encode(numbers)[:, 0].tolist())

    def queue(self, *numbers: int) -> None:
        """One more who waits."""
        waiting = len(self.together._waiting)
        self.asked.append(self.ask(*numbers))
        until(lambda: len(self.together._waiting) == waiting + 1)

    def results(self) -> list[object]:
        self.slow.go.set()
        with self.pool:
            return [future.exception(30) or future.result() for future in self.asked]


def test_one_caller_alone_is_served_at_once() -> None:
    crowd = Crowd()
    assert crowd.results() == [[0]] and crowd.slow.batches == [[0]]


def test_what_comes_while_one_is_at_work_is_the_next_batch() -> None:
    crowd = Crowd()
    for number in (1, 2, 3):
        crowd.queue(number)
    assert crowd.results() == [[0], [1], [2], [3]]
    assert crowd.slow.batches == [[0], [1, 2, 3]]


def test_a_batch_is_bounded_and_nobody_overtakes() -> None:
    crowd = Crowd()
    for number in range(1, 2 * SIZE + 2):
        crowd.queue(number)
    assert crowd.results() == [[number] for number in range(2 * SIZE + 2)]
    sizes = [len(batch) for batch in crowd.slow.batches]
    assert sizes == [1, SIZE, SIZE, 1]
    assert [number for batch in crowd.slow.batches for number in batch] == list(range(2 * SIZE + 2))


def test_a_free_lane_is_taken_at_once() -> None:
    crowd = Crowd(lanes=2)
    crowd.asked.append(crowd.ask(1))
    until(lambda: len(crowd.slow.batches) == 2)
    for number in (2, 3):
        crowd.queue(number)
    assert crowd.slow.batches == [[0], [1]], "there are two lanes and no third"
    assert crowd.results() == [[0], [1], [2], [3]]


def test_one_caller_may_bring_more_than_a_batch_holds() -> None:
    crowd = Crowd()
    crowd.queue(1)
    crowd.queue(*range(10, 10 + 2 * SIZE))
    assert crowd.results()[2] == list(range(10, 10 + 2 * SIZE))


def test_each_gets_the_rows_of_his_own_items_in_order() -> None:
    crowd = Crowd()
    crowd.queue(5, 4)
    crowd.queue(7)
    crowd.queue(9, 8, 6)
    assert crowd.results() == [[0], [5, 4], [7], [9, 8, 6]]
    assert len(crowd.slow.batches) == 2


def test_an_error_is_for_the_caller_whose_item_caused_it() -> None:
    crowd = Crowd()
    for number in (1, 101, 3, 103):
        crowd.queue(number)
    first, one, bad, three, worse = crowd.results()
    assert (first, one, three) == ([0], [1], [3])
    assert str(bad) == "not 101" and str(worse) == "not 103"
    crowd.pool = ThreadPoolExecutor(1)
    assert crowd.ask(8).result(30) == [8], "and it goes on"


def test_who_breaks_off_at_work_keeps_nobody_waiting() -> None:
    crowd = Crowd()
    crowd.queue(1001)  # leads the second batch, and breaks off with all of it undone
    for number in (1, 2):
        crowd.queue(number)
    first, broken, one, two = crowd.results()
    assert (first, one, two) == ([0], [1], [2]) and isinstance(broken, KeyboardInterrupt)


def test_who_gives_up_while_waiting_is_not_waited_for() -> None:
    in_a_process(given_up)


def given_up() -> None:
    """In the main thread, where Ctrl-C arrives."""
    crowd = Crowd()
    for number in (1, 2):
        crowd.queue(number)
    main = threading.main_thread().ident
    assert main is not None and threading.current_thread() is threading.main_thread()
    timer = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        crowd.together.encode([50])
    timer.join()
    crowd.queue(3)
    assert crowd.results() == [[0], [1], [2], [3]]
    assert crowd.slow.batches == [[0], [1, 2, 3]]


def test_it_is_told_how_many_were_encoded_together() -> None:
    sizes: list[int] = []
    together = Batcher(lambda numbers: np.zeros((len(numbers), 1), np.float32), sizes.append)
    together.encode([1, 2, 3])
    together.encode([1])
    assert sizes == [3, 1]


def test_every_encoder_has_a_queue_of_its_own() -> None:
    queues, one, other = BatcherPool(), ColourEncoder("one"), ColourEncoder("other")
    assert queues.of(one) is queues.of(one)
    assert queues.of(one).pictures is not queues.of(other).pictures
    assert queues.of(one).pictures is not queues.of(one).words


def test_an_encoder_that_nobody_else_holds_is_let_go_of() -> None:
    """That of a dropped model takes hundreds of megabytes."""
    queues, encoder = BatcherPool(), ColourEncoder("one")
    prepared = encoder.prepare(Image.new("RGB", (4, 4)))
    assert len(queues.of(encoder).pictures.encode([prepared])) == 1
    held = weakref.ref(encoder)
    del encoder
    assert held() is None


FORK = """
import os, threading
import numpy as np
from app.search.admission import Admission
from app.encoders.batching import Together

inside, admission = threading.Event(), Admission(1, 0.2)
def encode(numbers):
    if numbers == [0]:
        inside.set()
        threading.Event().wait(20)
    return np.zeros((len(numbers), 1))
together = Together(encode, lanes=1)
def work():
    with admission.admitted():
        together.encode([0])
threading.Thread(target=work, daemon=True).start()
inside.wait(20)
child = os.fork()
if child == 0:
    with admission.admitted():
        os._exit(len(together.encode([1, 2])))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(0)
"""


def test_a_child_that_was_forked_meanwhile_waits_for_nobody() -> None:
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert said.stdout.strip() == "2", said.stderr
