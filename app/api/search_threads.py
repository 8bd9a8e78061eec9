"""SearchThreads: how many searches of this process are in threads at a time; others wait without
one.

Threads that only wait for a place compete for the interpreter with those that search: with 64
clients, each in a thread of its own, a search by a vector took a third more processor time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from fastapi.concurrency import run_in_threadpool

from app.errors import Busy

THREADS_PER_PLACE = 2
"""While some search, as many others are received, decoded or sent, and wait for a place."""

T = TypeVar("T")


class SearchThreads:
    """Runs searches in threads, `threads` at a time, in order of arrival. For one event loop.

    One that waits longer than `wait_s` seconds is refused, and `refused` is called.
    """

    def __init__(self, threads: int, wait_s: float, refused: Callable[[], None]) -> None:
        self._free = asyncio.Semaphore(threads)
        self._wait_s = wait_s
        self._refused = refused

    async def run(self, call: Callable[..., T], *arguments: object) -> T:
        """The result of a call in a thread. Raises Busy if its turn does not come."""
        try:
            async with asyncio.timeout(self._wait_s):
                await self._free.acquire()
        except TimeoutError:
            self._refused()
            raise Busy(
                f"Too many searches at a time: this one waited {self._wait_s:g} s for its turn and "
                "was not begun. Try again in a moment."
            ) from None
        try:
            return await run_in_threadpool(call, *arguments)
        finally:
            self._free.release()
