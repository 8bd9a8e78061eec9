"""Searches get threads in order of arrival, so many at a time, and are refused after a while."""

from __future__ import annotations

import asyncio
import threading

import pytest

from app.api.search_threads import SearchThreads
from app.errors import Busy


def test_so_many_run_at_a_time_and_the_others_begin_in_order() -> None:
    began: list[int] = []
    go = threading.Event()

    def work(number: int) -> int:
        began.append(number)
        go.wait(300)
        return number

    async def run() -> None:
        threads = SearchThreads(2, 60, lambda: None)
        running = [asyncio.create_task(threads.run(work, number)) for number in range(5)]
        while len(began) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert sorted(began) == [0, 1]
        running.pop().cancel()
        go.set()
        assert [await each for each in running] == [0, 1, 2, 3]
        assert set(began[2:]) == {2, 3}

    asyncio.run(run())


def test_one_whose_turn_does_not_come_is_refused_and_takes_nothing() -> None:
    refused: list[bool] = []
    go = threading.Event()

    async def run() -> None:
        threads = SearchThreads(1, 0.1, lambda: refused.append(True))
        first = asyncio.create_task(threads.run(go.wait, 60))
        await asyncio.sleep(0)
        with pytest.raises(Busy, match=r"waited 0\.1 s"):
            await threads.run(print)
        assert refused == [True]
        go.set()
        assert await first
        assert await threads.run(lambda: 1) == 1  # its place is free

    asyncio.run(run())
