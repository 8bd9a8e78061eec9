"""Questions that are asked together are answered together, and never with an older answer."""

from __future__ import annotations

import asyncio

import pytest

from app.api.coalescing import Coalesced


class Source:
    """Answers with the state at the time of the question, when it is told to."""

    def __init__(self) -> None:
        self.state = 0
        self.asked: list[str] = []
        self.go = asyncio.Event()

    async def ask(self, key: str) -> int:
        self.asked.append(key)
        state = self.state
        await self.go.wait()
        if state < 0:
            raise ValueError(key)
        return state


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_who_asks_during_an_answer_gets_the_next_one_together_with_others() -> None:
    async def run() -> None:
        source = Source()
        answers = Coalesced(source.ask)
        first = asyncio.create_task(answers.get("a"))
        await settle()
        source.state = 1  # the answer on its way was read before
        later = [asyncio.create_task(answers.get("a")) for _ in range(5)]
        other = asyncio.create_task(answers.get("b"))
        await settle()
        assert source.asked == ["a", "b"]
        later.pop().cancel()  # it gives up, and the others do not
        source.go.set()
        assert await first == 0
        assert [await each for each in later] == [1, 1, 1, 1] and await other == 1
        assert source.asked == ["a", "b", "a"]
        source.state = 2
        assert await answers.get("a") == 2

    asyncio.run(run())


def test_an_error_reaches_all_who_wait_and_nobody_after_them() -> None:
    async def run() -> None:
        source = Source()
        source.state = -1
        answers = Coalesced(source.ask)
        waiting = [asyncio.create_task(answers.get("a")) for _ in range(3)]
        await settle()
        source.go.set()
        for each in waiting:
            with pytest.raises(ValueError, match="a"):
                await each
        source.state = 1
        assert await answers.get("a") == 1

    asyncio.run(run())
