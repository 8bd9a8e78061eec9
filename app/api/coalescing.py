"""Coalesced: one answer for all who ask the same question while the one before is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Coalesced(Generic[K, V]):
    """Asks `ask`, never twice at a time for one key. For one event loop.

    Who asks while an answer is on its way waits for the next one, because what is on its way may
    have been read before; all who wait get the same. So every answer was read after it was asked
    for. An error is raised in all of them.
    """

    def __init__(self, ask: Callable[[K], Awaitable[V]]) -> None:
        self._ask = ask
        self._next: dict[K, asyncio.Task[V]] = {}
        self._running: dict[K, asyncio.Task[V]] = {}

    async def get(self, key: K) -> V:
        """The answer for a key, read after this call."""
        task = self._next.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._run(key, self._running.get(key)))
            task.add_done_callback(_note_error)
            self._next[key] = task
        return await asyncio.shield(task)  # who gives up does not take the answer from the others

    async def _run(self, key: K, before: asyncio.Task[V] | None) -> V:
        if before is not None:
            await asyncio.wait([before])
        self._running[key] = self._next.pop(key)
        try:
            return await self._ask(key)
        finally:
            del self._running[key]


def _note_error(task: asyncio.Task[V]) -> None:
    """Mark an error as seen, also where nobody waits for it any more."""
    if not task.cancelled():
        task.exception()
