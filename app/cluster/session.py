"""A connection to a Ray cluster, with tasks on it: the only module that imports Ray."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import urlsplit

from app.cluster.attempts import Attempt, Attempts, Divide
from app.errors import LookalikeError
from app.types import ProgressCallback

T = TypeVar("T")

LOCAL = "local"

QUEUED_PER_SLOT = 2
"""Tasks in flight for each that the cluster runs at once: one computes, one waits for its turn."""

REFRESH_S = 2.0
"""Seconds after which it is asked again how many tasks the cluster runs at once."""

STALLED_S = 30.0
"""Seconds without a node for the tasks after which that is said, again and again."""

REASON_CHARACTERS = 300
"""Of the reason of Ray, the end is shown: it has the cause."""

NOT_IMPORTED = "The remote function failed to import on the worker"
"""The beginning of what Ray says of a worker that has no module of ours."""

REACH_S = 10.0
"""Seconds in which a cluster must take a connection."""


class RayUnavailable(LookalikeError):
    """There is no Ray cluster to run on."""


class ClusterLost(LookalikeError):
    """The Ray cluster does not answer any more. What was written stays: start it again, or another
    one, and run the same command."""


class NotInstalled(LookalikeError):
    """A machine of the cluster cannot load Lookalike. Install the same versions of it, of Python
    and of Ray everywhere, with the extra `ray`."""


class Cluster:
    """Runs tasks of `cpus` processors each, and a graphics card where the cluster has any."""

    def __init__(self, ray: Any, cpus: int, notify: ProgressCallback) -> None:
        self._ray = ray
        self._cpus = cpus
        self._notify = notify
        self._uses_gpus = ray.cluster_resources().get("GPU", 0) >= 1
        self._slots = 0
        self._dead = frozenset[str]()
        self._counted_at = self._told_at = -STALLED_S

    @property
    def slots(self) -> int:
        """How many tasks run at once now, by the resources of the nodes that are alive."""
        if time.monotonic() > self._counted_at + REFRESH_S:
            self._look()
        return self._slots

    def _look(self) -> None:
        nodes = self._ray.nodes()
        self._slots = sum(self._on_node(node["Resources"]) for node in nodes if node["Alive"])
        self._dead = frozenset(node["NodeID"] for node in nodes if not node["Alive"])
        self._counted_at = time.monotonic()

    def share(self, value: T) -> T:
        """A reference to a value, to be given to many calls, each of which gets the value."""
        return self._ray.put(value)  # type: ignore[no-any-return]

    def run(
        self,
        task: Callable[..., T],
        calls: Iterable[tuple[Any, ...]],
        divide: Divide[T] | None = None,
    ) -> Generator[T]:
        """Call a function on the cluster once for each tuple of arguments; yields the results as
        they are done.

        A call whose node or process was lost is made again, also if it had been completed: the
        function must be idempotent. One that ends its process each time is divided by `divide`.
        Calls are taken from the iterable when there is room for them. Raises the error that a call
        raises, after the others are cancelled, TaskCrashes, ClusterLost and NotInstalled.
        """
        # Ray's own retries do not tell a process that a task ends from a machine that is lost.
        remote = self._ray.remote(
            num_cpus=self._cpus, num_gpus=int(self._uses_gpus), max_retries=0
        )(task)
        waiting, running = Attempts[T](calls, lambda: self._dead, divide), dict[Any, Attempt]()
        try:
            while True:
                room = max(1, QUEUED_PER_SLOT * self.slots) - len(running)
                for attempt in islice(waiting, max(0, room)):
                    running[remote.remote(*attempt.call)] = attempt
                if not running:
                    return
                done, _ = self._ray.wait(list(running), num_returns=1, timeout=REFRESH_S)
                self._tell_stalled()
                for each in done:
                    yield from self._outcome(each, running.pop(each), waiting)
        except _client_errors() as exc:
            if isinstance(exc, self._ray.exceptions.RayTaskError):
                raise
            raise (NotInstalled if isinstance(exc, ImportError) else ClusterLost)() from exc
        finally:
            with suppress(*_client_errors()):
                for each in running:
                    self._ray.cancel(each)

    def _outcome(self, reference: Any, attempt: Attempt, waiting: Attempts[T]) -> Iterator[T]:
        """The result of a call that has ended, if it has one."""
        errors = self._ray.exceptions
        lost = (
            errors.NodeDiedError, errors.LocalRayletDiedError, errors.ObjectLostError,
            errors.OutOfMemoryError,
        )  # fmt: skip
        try:
            result: T | None = self._result(reference)
        except lost:
            waiting.lost(attempt)
            return
        except errors.WorkerCrashedError:
            self._look()
            if (result := waiting.crashed(attempt)) is None:
                return
        yield result  # type: ignore[misc]

    def _result(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as exc:
            if isinstance(exc.cause, LookalikeError):
                raise exc.cause from exc
            if NOT_IMPORTED in str(exc.cause):
                raise NotInstalled() from exc
            raise

    def _on_node(self, resources: dict[str, float]) -> int:
        slots = int(resources.get("CPU", 0) // self._cpus)
        return min(slots, int(resources.get("GPU", 0))) if self._uses_gpus else slots

    def _tell_stalled(self) -> None:
        if not self.slots and time.monotonic() > self._told_at + STALLED_S:
            self._told_at = time.monotonic()
            self._notify(f"Waiting: no node of the cluster has {_wanted(self._cpus)} at present.")


def _client_errors() -> tuple[type[Exception], ...]:
    """What Ray's client raises when it has lost the cluster, and when its process there does not
    know a module; it has imported gRPC."""
    grpc = sys.modules.get("grpc")
    errors = (ConnectionError, ImportError)
    return errors if grpc is None else (*errors, grpc.RpcError)


@contextmanager
def connect(
    address: str, cpus: int, notify: ProgressCallback = lambda message: None
) -> Iterator[Cluster]:
    """A cluster whose tasks take `cpus` processors each.

    `address` is "local" for processes of this machine that end with the block, "ray://HOST:PORT"
    for a cluster elsewhere, or the "HOST:PORT" of a cluster that this machine is a node of. Where
    the program has called `ray.init`, that cluster is used.

    Raises RayUnavailable.
    """
    ray = library()
    connected_before = ray.is_initialized()
    if not connected_before:
        initialise(ray, address)
    try:
        cluster = Cluster(ray, cpus, notify)
        if not cluster.slots:
            raise RayUnavailable(
                f"No node of the Ray cluster {address} has {_wanted(cpus)}, which a task takes; "
                "add one, or set LOOKALIKE_CLUSTER_CPUS."
            )
        yield cluster
    finally:
        if not connected_before:
            ray.shutdown()


def library() -> Any:
    """The module of Ray. Raises RayUnavailable."""
    # Reports to the makers of Ray are off unless they were asked for.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # a lost connection is an error
    try:
        import ray
    except ImportError as exc:
        raise RayUnavailable("This needs Ray: `pip install 'lookalike[ray]'`.") from exc
    return ray


def initialise(ray: Any, address: str) -> None:
    """Connect this process. Raises RayUnavailable."""
    if address == LOCAL:
        _protect_local()
        options: dict[str, Any] = {"include_dashboard": False}
    else:
        _check_reachable(address)
        options = {}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **options)
    except Exception as exc:  # Ray's client has a bare one too
        reason = " ".join((str(exc) or type(exc).__name__).split())  # it may be a whole trace
        raise _unusable(address, reason[-REASON_CHARACTERS:]) from exc
    finally:
        # Ray takes the signal for itself, and would end the program with another exit code.
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and on_sigterm is not None:
            signal.signal(signal.SIGTERM, on_sigterm)


def cut_connection() -> None:
    """Let calls of Ray's client end that wait for a network that is away."""
    from ray.util import client

    worker = client.ray.get_context().client_worker
    if worker is not None and worker.channel is not None:
        worker.channel.close()


def _protect_local() -> None:
    """Let nobody else run tasks here: Ray demands a token, which only these processes know.

    Without one, Ray would write one into the home of the user.
    """
    if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _check_reachable(address: str) -> None:
    """Ray would try for minutes. Raises RayUnavailable."""
    try:
        parts = urlsplit(f"//{address.removeprefix('ray://')}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port is None:
        raise _unusable(address, "this is not the address of a host with its port")
    try:
        socket.create_connection((host, port), timeout=REACH_S).close()
    except OSError as exc:
        raise _unusable(address, exc.strerror or str(exc)) from exc


def _unusable(address: str, reason: str) -> RayUnavailable:
    return RayUnavailable(
        f"No Ray cluster can be used at {address}: {reason.rstrip('.')}. Give 'local' for "
        "processes of this machine, or an address such as ray://host:10001; if the cluster demands "
        "a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN."
    )


def _wanted(cpus: int) -> str:
    return "a processor" if cpus == 1 else f"{cpus} processors"
