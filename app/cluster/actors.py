"""Actors of a Ray cluster, and the connection to them, which is made again after it was lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from app.cluster import session
from app.cluster.session import REASON_CHARACTERS
from app.errors import LookalikeError

T = TypeVar("T")

ANSWER_S = 15.0
"""Seconds in which a cluster must answer, or the connection is lost. Ray ends the process of a
node's driver after 60 s in which the head was away."""


CONNECT_S = 180.0
"""Seconds that making a connection may take: a busy machine needs half a minute."""


class CallFailed(LookalikeError):
    """A call of an actor failed: the actor or its machine was lost, or it raised an error."""


NAMESPACE = "lookalike"
"""Where actors have their names, for all programs on a cluster."""

PENDING_CALLS = 64
"""Calls of one actor by one process that may wait; further ones fail at once."""


class Actors:
    """Actors of `cpus` processors each, which outlive the program and which others share by name.

    They are reached by one connection; calls fail after it was made again.

    An actor whose process or machine is lost is created anew elsewhere, with the same arguments;
    calls that it had not answered fail.
    """

    def __init__(self, ray: Any, cpus: float, address: str = "") -> None:
        self._ray = ray
        self._cpus = cpus
        self._address = address
        self._connection = _connections

    def is_connected(self) -> bool:
        """Whether the cluster answers."""
        try:
            with self._failing():
                bounded(self._ray.nodes, ANSWER_S)
            return True
        except CallFailed:
            return False

    def connected_again(self) -> Actors:
        """The same after the connection was lost, by a new one. What was begun or shared by the
        earlier one is not to be used with it.

        Raises RayUnavailable and CallFailed.
        """
        with _attaching:
            if self._connection == _connections or not self._ray.is_initialized():
                _connect(self._ray, self._address)
            return Actors(self._ray, self._cpus, self._address)

    def start(self, name: str, kind: type, *arguments: Any, concurrent: int) -> Any:
        """The actor with this name, created of a class where there is none, which answers so many
        calls at the same time. Raises CallFailed."""
        with self._failing():
            return (
                self._ray.remote(kind)
                .options(
                    name=name, namespace=NAMESPACE, lifetime="detached", get_if_exists=True,
                    num_cpus=self._cpus, max_restarts=-1, max_task_retries=0,
                    max_concurrency=concurrent, max_pending_calls=PENDING_CALLS,
                    scheduling_strategy="SPREAD",
                )
                .remote(*arguments)
            )  # fmt: skip

    def share(self, value: Any) -> Any:
        """A reference to a value, to be given to many calls."""
        with self._failing():
            return self._ray.put(value)

    def call(self, actor: Any, method: str, *arguments: Any) -> Any:
        """Begin a call. Raises CallFailed."""
        with self._failing():
            return getattr(actor, method).remote(*arguments)

    def wait(self, calls: list[Any], seconds: float) -> list[Any]:
        """Those of the calls that have ended, after so many seconds at most."""
        if not calls:
            return []
        with self._failing():
            done, _ = self._ray.wait(calls, num_returns=len(calls), timeout=seconds)
            return list(done)

    def result(self, call: Any) -> Any:
        """The result of a call that has ended. Raises CallFailed."""
        with self._failing():
            return self._ray.get(call)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        # Ray would begin a cluster of its own, or end the process for a value of another one.
        if not self._ray.is_initialized() or self._connection != _connections:
            raise CallFailed("this process is not connected to a Ray cluster any more")
        try:
            yield
        except Exception as exc:  # Ray says so too that an actor belongs to an earlier connection
            lines = str(exc).strip().splitlines() or [type(exc).__name__]
            raise CallFailed(lines[-1][-REASON_CHARACTERS:]) from exc


def attach(address: str, cpus: float) -> Actors:
    """Actors of a cluster, to which this process stays connected; `address` as for
    `session.connect`.

    Raises RayUnavailable and CallFailed.
    """
    ray = session.library()
    with _attaching:
        if not ray.is_initialized():
            _connect(ray, address)
    return Actors(ray, cpus, address)


_attaching = threading.Lock()
_connections = 0
"""How many were made; a process has one at a time."""


def _connect(ray: Any, address: str) -> None:
    global _connections
    try:
        bounded(ray.shutdown, ANSWER_S)
    except CallFailed:  # it waits for what a network that is away does not bring
        session.cut_connection()
        bounded(ray.shutdown, ANSWER_S)
    _connections += 1
    bounded(partial(session.initialise, ray, address), CONNECT_S)


def bounded(function: Callable[[], T], seconds: float) -> T:
    """What a function returns in a thread of its own. Raises CallFailed if that takes longer; the
    thread goes on."""
    done = Future[T]()

    def run() -> None:
        try:
            done.set_result(function())
        except BaseException as exc:
            done.set_exception(exc)

    threading.Thread(target=run, name="ask-cluster", daemon=True).start()
    if not wait([done], seconds).done:
        raise CallFailed(f"the cluster did not answer within {seconds:g} s")
    return done.result()


def end_this_actor() -> None:
    """End the actor in whose process this is called; it is not created anew."""
    ray = session.library()
    ray.kill(ray.get_runtime_context().current_actor, no_restart=True)
