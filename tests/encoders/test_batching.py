"""Dynamic batching: concurrent requests share a batch, and each gets its own rows."""

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
from support.concurrency import in_a_process, wait_until

SIZE = 8


class Slow:
    """Encodes numbers as themselves once `go` is set; fails for odd ones over 100."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.batches: list[list[int]] = []

    def encode(self, numbers: Sequence[int]) -> Vectors:
        self.batches.append(list(numbers))
        self.begun.set()
        assert self.go.wait(300)
        for number in numbers:
            if number > 1000:
                raise KeyboardInterrupt
            if number > 100 and number % 2:
                raise ValueError(f"not {number}")
        return np.array(numbers, dtype=np.float32)[:, np.newaxis]


class Crowd:
    """Callers in threads of their own; the first one keeps a slot busy until `go` is set."""

    def __init__(self, slots: int = 1) -> None:
        self.slow = Slow()
        self.batcher = Batcher(self.slow.encode, max_batch=SIZE, slots=slots)
        self.pool = ThreadPoolExecutor(40)
        self.requests = [self.request(0)]
        assert self.slow.begun.wait(300)

    def request(self, *numbers: int) -> Future[list[float]]:
        return self.pool.submit(lambda: self.batcher.encode(numbers)[:, 0].tolist())

    def queue(self, *numbers: int) -> None:
        """Add a request that waits in the queue."""
        waiting = len(self.batcher._waiting)
        self.requests.append(self.request(*numbers))
        wait_until(lambda: len(self.batcher._waiting) == waiting + 1)

    def results(self) -> list[object]:
        self.slow.go.set()
        with self.pool:
            return [future.exception(30) or future.result() for future in self.requests]


def test_a_single_request_runs_at_once() -> None:
    crowd = Crowd()
    assert crowd.results() == [[0]] and crowd.slow.batches == [[0]]


def test_requests_that_arrive_while_the_slot_is_busy_form_the_next_batch() -> None:
    crowd = Crowd()
    for number in (1, 2, 3):
        crowd.queue(number)
    assert crowd.results() == [[0], [1], [2], [3]]
    assert crowd.slow.batches == [[0], [1, 2, 3]]


def test_a_batch_is_bounded_and_requests_keep_their_order() -> None:
    crowd = Crowd()
    for number in range(1, 2 * SIZE + 2):
        crowd.queue(number)
    assert crowd.results() == [[number] for number in range(2 * SIZE + 2)]
    sizes = [len(batch) for batch in crowd.slow.batches]
    assert sizes == [1, SIZE, SIZE, 1]
    assert [number for batch in crowd.slow.batches for number in batch] == list(range(2 * SIZE + 2))


def test_a_free_slot_is_used_at_once() -> None:
    crowd = Crowd(slots=2)
    crowd.requests.append(crowd.request(1))
    wait_until(lambda: len(crowd.slow.batches) == 2)
    for number in (2, 3):
        crowd.queue(number)
    assert crowd.slow.batches == [[0], [1]], "there is no third slot"
    assert crowd.results() == [[0], [1], [2], [3]]


def test_one_request_may_have_more_items_than_the_maximum_batch() -> None:
    crowd = Crowd()
    crowd.queue(1)
    crowd.queue(*range(10, 10 + 2 * SIZE))
    assert crowd.results()[2] == list(range(10, 10 + 2 * SIZE))


def test_each_request_gets_the_rows_of_its_items_in_order() -> None:
    crowd = Crowd()
    crowd.queue(5, 4)
    crowd.queue(7)
    crowd.queue(9, 8, 6)
    assert crowd.results() == [[0], [5, 4], [7], [9, 8, 6]]
    assert len(crowd.slow.batches) == 2


def test_only_the_request_that_causes_an_error_gets_it() -> None:
    crowd = Crowd()
    for number in (1, 101, 3, 103):
        crowd.queue(number)
    first, one, bad, three, worse = crowd.results()
    assert (first, one, three) == ([0], [1], [3])
    assert str(bad) == "not 101" and str(worse) == "not 103"
    crowd.pool = ThreadPoolExecutor(1)
    assert crowd.request(8).result(300) == [8], "later requests are served"


def test_an_interrupted_leader_does_not_block_the_others() -> None:
    crowd = Crowd()
    crowd.queue(1001)  # leads the second batch and is interrupted before any of it is done
    for number in (1, 2):
        crowd.queue(number)
    first, broken, one, two = crowd.results()
    assert (first, one, two) == ([0], [1], [2]) and isinstance(broken, KeyboardInterrupt)


def test_a_request_interrupted_in_the_queue_is_removed() -> None:
    in_a_process(interrupted_in_the_queue)


def interrupted_in_the_queue() -> None:
    """Runs in the main thread, which receives Ctrl-C."""
    crowd = Crowd()
    for number in (1, 2):
        crowd.queue(number)
    main = threading.main_thread().ident
    assert main is not None and threading.current_thread() is threading.main_thread()
    timer = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        crowd.batcher.encode([50])
    timer.join()
    crowd.queue(3)
    assert crowd.results() == [[0], [1], [2], [3]]
    assert crowd.slow.batches == [[0], [1, 2, 3]]


def test_the_observer_gets_the_size_of_each_batch() -> None:
    sizes: list[int] = []
    batcher = Batcher(lambda numbers: np.zeros((len(numbers), 1), np.float32), sizes.append)
    batcher.encode([1, 2, 3])
    batcher.encode([1])
    assert sizes == [3, 1]


def test_every_encoder_has_its_own_queues() -> None:
    queues, one, other = BatcherPool(), ColourEncoder("one"), ColourEncoder("other")
    assert queues.get(one) is queues.get(one)
    assert queues.get(one).pictures is not queues.get(other).pictures
    assert queues.get(one).pictures is not queues.get(one).words


def test_the_pool_does_not_keep_an_encoder_alive() -> None:
    """The encoder of a dropped model takes hundreds of megabytes."""
    queues, encoder = BatcherPool(), ColourEncoder("one")
    prepared = encoder.prepare(Image.new("RGB", (4, 4)))
    assert len(queues.get(encoder).pictures.encode([prepared])) == 1
    held = weakref.ref(encoder)
    del encoder
    assert held() is None


FORK = """
import os, threading
import numpy as np
from app.search.admission import Admission
from app.encoders.batching import Batcher

inside, admission = threading.Event(), Admission(1, 0.2)
def encode(numbers):
    if numbers == [0]:
        inside.set()
        threading.Event().wait(300)
    return np.zeros((len(numbers), 1))
batcher = Batcher(encode, slots=1)
def work():
    with admission.admitted():
        batcher.encode([0])
threading.Thread(target=work, daemon=True).start()
inside.wait(300)
child = os.fork()
if child == 0:
    with admission.admitted():
        os._exit(len(batcher.encode([1, 2])))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(0)
"""


def test_a_forked_child_does_not_wait_for_slots_of_its_parent() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "2", done.stderr
