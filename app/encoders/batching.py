"""Together: what several callers want of one encoder at the same time is done in one batch.

Nobody waits so that a batch may grow: whoever comes while a lane is free begins at once, and what
comes while none is free is the next batch. The callers take turns at the work, so that there is no
thread to start, to stop or to lose, and one caller alone does what it would do without.
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
from app.encoders.preprocessing import Prepared
from app.types import Vectors

T = TypeVar("T")

MAX_BATCH = 4
"""Items in a batch, unless one caller alone brings more. Larger ones cost no less an item, and the
small network's fall out of the cache; everybody in one waits for the last."""

SLOTS = 2
"""Batches at a time: while one is between two of the steps that use all cores, the other is not."""


class Batcher(Generic[T]):
    """A queue before one encoder. Safe to use from several threads.

    `encode` turns n items into n rows; `observe` is told how many items each batch had.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[T]], Vectors],
        observe: Callable[[int], None] | None = None,
        *,
        most: int = MAX_BATCH,
        lanes: int = SLOTS,
    ) -> None:
        self._lanes = lanes
        self._encode = encode
        self._observe = observe
        self._most = most
        self._begin()
        after_fork_in_child(self._begin)

    def _begin(self) -> None:
        """Nobody is at work and nobody waits: so at first, and in a child that was forked."""
        self._lock = threading.Lock()
        self._waiting: deque[_Request[T]] = deque()
        self._free = self._lanes

    def encode(self, items: Sequence[T]) -> Vectors:
        """The rows of these items, in order. Raises what the encoder raises for them alone."""
        wish = _Request(items)
        try:
            if not self._begins(wish):
                wish.woken.wait()
            if wish.leads:
                self._lead(wish)
        except BaseException:  # Ctrl-C, for one: nobody may wait for ever because of it
            self._leave(wish)
            raise
        if wish.error is not None:
            raise wish.error
        assert wish.rows is not None
        return wish.rows

    def _begins(self, wish: _Request[T]) -> bool:
        """Whether the caller does the work itself, and at once; otherwise it is in the queue."""
        with self._lock:
            wish.leads = self._free > 0
            if wish.leads:
                self._free -= 1
            else:
                self._waiting.append(wish)
        return wish.leads

    def _lead(self, own: _Request[T]) -> None:
        """Do what waits, as much as one batch may hold, and let somebody else go on."""
        batch = self._batch(own)
        try:
            self._answer(batch)
        finally:
            self._pass_on(own, batch[1:])

    def _batch(self, own: _Request[T]) -> list[_Request[T]]:
        batch, size = [own], len(own.items)
        with self._lock:
            while self._waiting and size + len(self._waiting[0].items) <= self._most:
                batch.append(self._waiting.popleft())
                size += len(batch[-1].items)
        return batch

    def _answer(self, batch: Sequence[_Request[T]]) -> None:
        """Give each its rows; what fails together is tried one by one: whose fault is it?"""
        items = [item for wish in batch for item in wish.items]
        try:
            rows = self._encode(items)
        except Exception as exc:
            if len(batch) == 1:
                batch[0].error = exc
            else:
                for wish in batch:
                    self._answer([wish])
            return
        if self._observe:
            self._observe(len(items))
        begin = 0
        for wish in batch:
            wish.rows = rows[begin : begin + len(wish.items)]
            begin += len(wish.items)

    def _pass_on(self, own: _Request[T], others: Sequence[_Request[T]]) -> None:
        """Wake the next who does the work, then those that have their answer.

        Who has none, since the work was broken off, is the first to be served now.
        """
        with self._lock:
            own.leads = False
            self._waiting.extendleft(wish for wish in reversed(others) if not wish.answered)
            following = self._waiting.popleft() if self._waiting else None
            if following is None:
                self._free += 1
            else:
                following.leads = True
        for wish in (following, *others):
            if wish is not None and (wish.leads or wish.answered):
                wish.woken.set()

    def _leave(self, wish: _Request[T]) -> None:
        """Somebody gives up, perhaps just when it is to do the work."""
        with self._lock:
            if wish in self._waiting:
                self._waiting.remove(wish)
        if wish.leads:
            self._pass_on(wish, ())


class _Request(Generic[T]):
    """What one caller wants, and what came of it; `leads` while it does the work of all."""

    def __init__(self, items: Sequence[T]) -> None:
        self.items = items
        self.woken = threading.Event()
        self.leads = False
        self.rows: Vectors | None = None
        self.error: Exception | None = None

    @property
    def answered(self) -> bool:
        return self.rows is not None or self.error is not None


@dataclass(frozen=True, slots=True)
class EncoderQueues:
    """The queues before one encoder: pictures never wait for words, nor words for pictures."""

    pictures: Batcher[Prepared]
    words: Batcher[str]


class BatcherPool:
    """The queues before the encoders of this process. Safe to use from several threads.

    They keep no encoder in memory that nobody else holds.
    """

    def __init__(
        self,
        observe: Callable[[int], None] | None = None,
        *,
        most: int = MAX_BATCH,
        lanes: int = SLOTS,
    ) -> None:
        """`observe` is told how many pictures each batch had."""
        self._observe = observe
        self._most = most
        self._lanes = lanes
        self._of: WeakKeyDictionary[Encoder, EncoderQueues] = WeakKeyDictionary()

    def of(self, encoder: Encoder) -> EncoderQueues:
        """The queues before this encoder, always the same."""
        found = self._of.get(encoder)
        if found is None:
            most, lanes = self._most, self._lanes
            made = EncoderQueues(
                Batcher(_lent(encoder.encode_prepared), self._observe, most=most, lanes=lanes),
                Batcher(_lent(encoder.encode_words), most=most, lanes=lanes),
            )
            found = self._of.setdefault(encoder, made)  # of two at once, the first counts
        return found


def _lent(method: Callable[[Sequence[T]], Vectors]) -> Callable[[Sequence[T]], Vectors]:
    """A method of an object that is kept alive by whoever calls."""
    lent = WeakMethod(method)

    def call(items: Sequence[T]) -> Vectors:
        found = lent()
        assert found is not None
        return found(items)

    return call
