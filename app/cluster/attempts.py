"""Calls of tasks that are made again, or divided because they end the process that runs them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from app.errors import LookalikeError

T = TypeVar("T")

Call = tuple[Any, ...]
"""The arguments of a call."""

CRASHES = 3
"""How often a call must end its process before it is taken to be the cause: there are others, such
as a machine that runs out of memory."""


class TaskCrashes(LookalikeError):
    """A task ends its process each time, so what it computes is missing."""


@dataclass(frozen=True, slots=True)
class Divided(Generic[T]):
    """What is done in place of a call that ends its process: smaller `calls`, or if it cannot be
    divided any more, a `result` that says so."""

    calls: Sequence[Call] = ()
    result: T | None = None


Divide = Callable[[Call], Divided[T]]


@dataclass(slots=True)
class Attempt:
    """A call that is made until it has a result; `dead` are the nodes that were lost before."""

    call: Call
    dead: frozenset[str]
    part: bool = False
    """Whether it is a part of a call that ended its process."""
    crashes: int = 0


class Attempts(Generic[T]):
    """Calls that wait for their turn: those to be made again first.

    `dead` names the nodes that were lost so far. A call whose node was lost is made again, however
    often. One that ends its process CRASHES times on nodes that live is divided, its parts already
    after one time, so that of many rows the one at fault is found in few attempts; without `divide`
    TaskCrashes is raised.
    """

    def __init__(
        self, calls: Iterable[Call], dead: Callable[[], frozenset[str]], divide: Divide[T] | None
    ) -> None:
        self._calls = iter(calls)
        self._dead = dead
        self._divide = divide
        self._again = deque[Attempt]()

    def __iter__(self) -> Iterator[Attempt]:
        return self

    def __next__(self) -> Attempt:
        if self._again:
            return self._again.popleft()
        return Attempt(next(self._calls), self._dead())

    def lost(self, attempt: Attempt) -> None:
        """The node of a call was lost, or what it returned."""
        self._again.append(attempt)

    def crashed(self, attempt: Attempt) -> T | None:
        """The process of a call has ended; returns a result that takes the place of its own.

        Raises TaskCrashes.
        """
        attempt.crashes += 1
        # A lost node may look like a crash.
        crashes = attempt.crashes - len(self._dead() - attempt.dead)
        if crashes >= CRASHES and self._divide is None:
            raise TaskCrashes(
                f"A task of the cluster ended its process {crashes} times. The logs of Ray on its "
                "node say why (python-core-worker-*.log, and the system's if memory ran out)."
            )
        if self._divide is not None and crashes >= (1 if attempt.part else CRASHES):
            divided = self._divide(attempt.call)
            if divided.calls:
                dead = self._dead()
                self._again += [Attempt(call, dead, part=True) for call in divided.calls]
                return None
            if crashes >= CRASHES or divided.result is None:
                return divided.result
        self._again.append(attempt)
        return None
