"""A part that is late or lost is not waited for again until it has answered."""

from __future__ import annotations

from importlib.metadata import version
from threading import Event
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from app.cluster import actors as cluster_actors
from app.cluster import parts
from app.cluster.actors import Actors, CallFailed
from app.cluster.parts import RemoteParts
from app.cluster.session import RayUnavailable
from app.config import Settings
from app.errors import IndexUnreadable
from app.index.id_selectors import IdSelector
from app.types import Build
from support.concurrency import SOON_S, wait_until


class Call:
    """A call of a part, which ends when it is told to."""

    def __init__(self, number: int, method: str) -> None:
        self.number, self.method = number, method
        self.ended = self.failed = False


class HandActors:
    """Actors whose calls end by hand: those in `late` wait, those in `lost` fail. Of a cluster that
    is `away` all fail, and with `silent` no call comes back before it is set."""

    def __init__(self) -> None:
        self.late, self.lost, self.calls, self.waited = set[int](), set[int](), list[Call](), 0
        self.away, self.silent, self.tried = False, Event(), 0
        self.silent.set()
        self.again: HandActors | None = None

    def is_connected(self) -> bool:
        return not self.away

    def connected_again(self) -> HandActors:
        self.tried += 1
        if self.again is None:
            raise RayUnavailable
        return self.again

    def _ask(self) -> None:
        self.silent.wait(SOON_S)
        if self.away:
            raise CallFailed("away")

    def start(self, name: str, kind: type, settings: str, build: Build, *_: Any, **__: Any) -> int:
        self._ask()
        assert build.part is not None
        return build.part

    def share(self, value: Any) -> Any:
        return value

    def call(self, actor: int, method: str, *_: Any) -> Call:
        self._ask()
        self.calls.append(Call(actor, method))
        self.calls[-1].failed = actor in self.lost
        self.calls[-1].ended = actor not in self.late
        return self.calls[-1]

    def wait(self, calls: list[Call], seconds: float) -> list[Call]:
        self.waited += bool(seconds) and not all(call.ended for call in calls)
        return [call for call in calls if call.ended]

    def result(self, call: Call) -> Any:
        if call.failed:
            raise CallFailed("lost")
        ids = np.array([[call.number]], np.int64)
        return True if call.method == "is_open" else (np.ones((1, 1), np.float32), ids)

    def end_all(self) -> None:
        for call in self.calls:
            call.ended = True


@pytest.fixture
def actors() -> HandActors:
    return HandActors()


@pytest.fixture
def searcher(actors: HandActors, monkeypatch: pytest.MonkeyPatch) -> RemoteParts:
    monkeypatch.setattr(parts, "RENEW_S", 3600.0)
    listed = [
        {"sha256": str(n), "size": 1, "rows": 1, "first": n, "last": n} for n in range(3)
    ]  # fmt: skip
    build = Build(
        1, 1, "", "", "ivf-parts", {"parts": listed}, 3, "", 3, None, None, None, None, 0.0,
        "published", None, None,
    )  # fmt: skip
    return RemoteParts(cast(Actors, actors), "{}", build, 0.5)


def answering(searcher: RemoteParts) -> list[bool]:
    query = np.ones((1, 1), np.float32)
    return [each is not None for each in searcher.search_parts(query, 1, 1, None, None)]


def test_a_late_part_is_waited_for_once(searcher: RemoteParts, actors: HandActors) -> None:
    assert answering(searcher) == [True] * 3
    actors.late.add(1)
    assert answering(searcher) == [True, False, True] and actors.waited == 1
    asked = len(actors.calls)
    assert answering(searcher) == [True, False, True] and actors.waited == 1
    assert [call.number for call in actors.calls[asked:]] == [0, 2]
    actors.late.clear()
    actors.end_all()
    assert answering(searcher) == [True] * 3


def test_a_lost_part_is_asked_for_a_sign_of_life(searcher: RemoteParts, actors: HandActors) -> None:
    actors.lost.add(2)
    assert answering(searcher) == [True, True, False]
    assert answering(searcher) == [True, True, False]
    assert {call.method for call in actors.calls if call.number == 2} == {"search", "is_open"}
    assert actors.waited == 0
    actors.lost.clear()
    answering(searcher)  # notices that the last sign of life failed, and asks again
    assert answering(searcher) == [True] * 3


def test_a_part_that_is_not_open_yet_does_not_hold_up_a_search(
    searcher: RemoteParts, actors: HandActors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors, "result", lambda call: None)
    assert answering(searcher) == [False] * 3
    monkeypatch.undo()
    assert answering(searcher) == [True] * 3


def test_without_a_connection_nothing_begins_a_cluster() -> None:
    ray = SimpleNamespace(is_initialized=lambda: False)
    with pytest.raises(CallFailed, match="not connected"):
        Actors(ray, 1.0).start("name", object, concurrent=1)


@pytest.mark.parametrize("step", ["share", "call", "wait", "result"])
def test_a_connection_that_is_lost_leaves_all_parts_out_wherever_it_is_noticed(
    searcher: RemoteParts, actors: HandActors, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """PostgreSQL answers the search."""
    monkeypatch.setattr(parts, "SHARED_BYTES", 0)
    query, selector = np.ones((1, 1), np.float32), IdSelector(np.arange(3))
    with monkeypatch.context() as patch:
        patch.setattr(actors, step, _lost)
        assert searcher.search_parts(query, 1, 1, selector, None) == [None] * 3
    wait_until(lambda: answering(searcher) == [True] * 3)


@pytest.mark.parametrize("silent", [False, True])
def test_a_cluster_that_was_away_is_connected_to_again_and_no_search_waits_for_it(
    searcher: RemoteParts, actors: HandActors, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    """Whether its calls fail or never come back."""
    monkeypatch.setattr(parts, "LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr(parts, "ANSWER_S", 0.01)
    assert answering(searcher) == [True] * 3
    actors.away = True
    if silent:
        actors.silent.clear()
    try:
        wait_until(lambda: answering(searcher) == [False] * 3 and actors.tried > 3)
        asked, again = len(actors.calls), HandActors()
        actors.again = again
        wait_until(lambda: answering(searcher) == [True] * 3)
        assert {call.number for call in again.calls} == {0, 1, 2}
        again.late.add(1)
        assert answering(searcher) == [True, False, True]
        assert len(actors.calls) == asked
    finally:
        actors.silent.set()


def _lost(*_: object, **__: object) -> Any:
    raise CallFailed("this process is not connected to a Ray cluster any more")


def test_an_actor_of_another_version_ends_whoever_asks_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then it is begun again, on a node that may have been updated; processes of two versions have
    actors of their own."""
    ended = Event()
    monkeypatch.setattr(cluster_actors, "end_this_actor", ended.set)
    monkeypatch.setattr(parts, "LEASE_S", 0.0)
    actor = parts.PartActor("{}", cast(Build, None), "0.0.1")
    with pytest.raises(IndexUnreadable, match=r"this is 0\.0\.1"):
        actor.is_open()
    assert ended.wait(30)
    asked_at = actor._asked_at
    with pytest.raises(IndexUnreadable):
        actor.is_open()
    assert actor._asked_at == asked_at


def test_a_part_that_cannot_be_opened_is_tried_again_whatever_the_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried, opened = list[str](), Event()

    def engine(settings: Settings) -> Any:
        tried.append(settings.model_dump_json())
        if len(tried) == 1:
            raise MemoryError
        opened.set()
        raise IndexUnreadable("enough")

    monkeypatch.setattr(parts, "RETRY_S", 0.0)
    monkeypatch.setattr(parts, "make_engine", engine)
    monkeypatch.setattr(parts.PartActor, "_end_unused", lambda self: None)
    actor = parts.PartActor("{}", cast(Build, None), version("lookalike"))
    try:
        assert opened.wait(30)
    finally:
        actor._index = cast(Any, object())


def test_whatever_ray_raises_is_a_call_that_failed() -> None:
    """As a bare Exception for an actor of a connection that was lost and made again."""

    def wait(*_: object, **__: object) -> None:
        raise Exception("Failed to submit task to actor: it's from a different cluster")

    actors = Actors(SimpleNamespace(is_initialized=lambda: True, wait=wait), 1.0)
    with pytest.raises(CallFailed, match="from a different cluster"):
        actors.wait([object()], 0)
