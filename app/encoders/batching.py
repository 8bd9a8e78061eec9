"""Dynamic batching: concurrent requests to one encoder are encoded in one batch.

A request runs at once if a slot is free; requests that arrive while all slots are busy form the
next batch. Nothing waits for a batch to fill up. The callers' own threads do the encoding (leader
and followers), so there is no worker thread to start or to stop, and a single caller has no
overhead.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary, WeakMethod

from app.concurrency import after_fork_in_child
from app.encoders.base import Encoder
from app.encoders.preprocessing import PreparedPicture
from app.types import Vectors

T = TypeVar("T")

MAX_BATCH = 4
"""Maximum items in a batch, unless a single request has more. Larger batches are no faster per
item, the small network's fall out of the processor's cache, and every request in a batch waits for
the whole batch."""

SLOTS = 2
"""Batches that run at the same time: while one is between two operations that use all cores, the
other uses them."""


class Batcher(Generic[T]):
    """Batches the requests to one encoder method. Safe to use from several threads.

    `encode` turns n items into n rows; `observe` is called with the number of items of each batch.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[T]], Vectors],
        observe: Callable[[int], None] | None = None,
        *,
        max_batch: int = MAX_BATCH,
        slots: int = SLOTS,
    ) -> None:
        self._slots = slots
        self._encode = encode
        self._observe = observe
        self._max_batch = max_batch
        self._reset()
        after_fork_in_child(self._reset)

    def _reset(self) -> None:
        """The idle state: at first, and in a forked child, which has no other threads."""
        self._lock = threading.Lock()
        self._waiting: deque[_Request[T]] = deque()
        self._free_slots = self._slots

    def encode(self, items: Sequence[T]) -> Vectors:
        """The rows of these items, in order. Raises what the encoder raises for them alone."""
        request = _Request(items)
        try:
            if not self._take_slot(request):
                request.woken.wait()
            if request.leads:
                self._lead(request)
        except BaseException:  # for example Ctrl-C: the other requests must not wait forever
            self._abandon(request)
            raise
        if request.error is not None:
            raise request.error
        assert request.rows is not None
        return request.rows

    def _take_slot(self, request: _Request[T]) -> bool:
        """Whether the request got a free slot and leads a batch; otherwise it was queued."""
        with self._lock:
            request.leads = self._free_slots > 0
            if request.leads:
                self._free_slots -= 1
            else:
                self._waiting.append(request)
        return request.leads

    def _lead(self, leader: _Request[T]) -> None:
        """Encode the next batch in this thread, then hand the slot to the next leader."""
        batch = self._next_batch(leader)
        try:
            self._run(batch)
        finally:
            self._release_slot(leader, batch[1:])

    def _next_batch(self, leader: _Request[T]) -> list[_Request[T]]:
        batch, size = [leader], len(leader.items)
        with self._lock:
            while self._waiting and size + len(self._waiting[0].items) <= self._max_batch:
                batch.append(self._waiting.popleft())
                size += len(batch[-1].items)
        return batch

    def _run(self, batch: Sequence[_Request[T]]) -> None:
        """Give each request its rows or its error.

        If the batch fails, each request is encoded alone, so that only those that cause an error
        get it.
        """
        items = [item for request in batch for item in request.items]
        try:
            rows = self._encode(items)
        except Exception as exc:
            if len(batch) == 1:
                batch[0].error = exc
            else:
                for request in batch:
                    self._run([request])
            return
        if self._observe:
            self._observe(len(items))
        start = 0
        for request in batch:
            request.rows = rows[start : start + len(request.items)]
            start += len(request.items)

    def _release_slot(self, leader: _Request[T], followers: Sequence[_Request[T]]) -> None:
        """Wake the next leader, if any request waits, and the followers that are done.

        Followers without a result, because the batch was interrupted, return to the front of the
        queue.
        """
        with self._lock:
            leader.leads = False
            self._waiting.extendleft(request for request in reversed(followers) if not request.done)
            next_leader = self._waiting.popleft() if self._waiting else None
            if next_leader is None:
                self._free_slots += 1
            else:
                next_leader.leads = True
        for request in (next_leader, *followers):
            if request is not None and (request.leads or request.done):
                request.woken.set()

    def _abandon(self, request: _Request[T]) -> None:
        """Remove an interrupted request, which may have become a leader in the meantime."""
        with self._lock:
            if request in self._waiting:
                self._waiting.remove(request)
        if request.leads:
            self._release_slot(request, ())


class _Request(Generic[T]):
    """The items of one caller and their result; `leads` while its thread encodes a batch."""

    def __init__(self, items: Sequence[T]) -> None:
        self.items = items
        self.woken = threading.Event()
        self.leads = False
        self.rows: Vectors | None = None
        self.error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.rows is not None or self.error is not None


@dataclass(frozen=True, slots=True)
class EncoderQueues:
    """The batchers of one encoder: pictures and texts never wait for each other."""

    pictures: Batcher[PreparedPicture]
    words: Batcher[str]


class BatcherPool:
    """The batchers of this process's encoders. Safe to use from several threads.

    Holds encoders by weak references only, so that those of dropped models are freed.
    """

    def __init__(
        self,
        observe: Callable[[int], None] | None = None,
        *,
        max_batch: int = MAX_BATCH,
        slots: int = SLOTS,
    ) -> None:
        """`observe` is called with the number of pictures of each batch."""
        self._observe = observe
        self._max_batch = max_batch
        self._slots = slots
        self._queues: WeakKeyDictionary[Encoder, EncoderQueues] = WeakKeyDictionary()

    def get(self, encoder: Encoder) -> EncoderQueues:
        """The batchers of this encoder, always the same ones."""
        queues = self._queues.get(encoder)
        if queues is None:
            # If two threads get here at once, the first one's queues are used by both.
            queues = self._queues.setdefault(encoder, self._create(encoder))
        return queues

    def _create(self, encoder: Encoder) -> EncoderQueues:
        max_batch, slots = self._max_batch, self._slots
        pictures, words = _weak(encoder.encode_prepared), _weak(encoder.encode_words)
        return EncoderQueues(
            Batcher(pictures, self._observe, max_batch=max_batch, slots=slots),
            Batcher(words, max_batch=max_batch, slots=slots),
        )


def _weak(method: Callable[[Sequence[T]], Vectors]) -> Callable[[Sequence[T]], Vectors]:
    """A method that does not keep its object alive; callers must hold the object."""
    reference = WeakMethod(method)

    def call(items: Sequence[T]) -> Vectors:
        method = reference()
        assert method is not None
        return method(items)

    return call
