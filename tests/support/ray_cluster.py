"""A Ray cluster of small nodes on this machine, for all tests of a process."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.paths import REPO

INDEX_FOLDER = Path(tempfile.gettempdir()) / f"lookalike-parts-{os.getpid()}"
"""Where the processes of a cluster keep index files, apart from those of the tests."""

NODE = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False,
        "include_log_monitor": False,
        "env_vars": {"LOOKALIKE_INDEX_DIR": str(INDEX_FOLDER)}}  # fmt: skip


ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Where other tests fill the memory, Ray would kill workers: it looks at that of the machine.
    "RAY_memory_monitor_refresh_ms": "0",
    # Where other tests run, workers would wait for their turn.
    "RAY_worker_niceness": "0",
    # A busy machine takes its time.
    "RAY_gcs_server_port_wait_time_s": "300",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300",
    # A node whose process has ended is lost after five looks, one that is late after minutes.
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "300",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_health_check_failure_threshold": "5",
}

STARTED_S = 60.0
"""Seconds in which a node must be there, or is begun again; Ray gives up after 30, whatever its
settings."""


@contextmanager
def small_cluster() -> Iterator[Any]:
    """A cluster of two nodes, which compute one task each."""
    pytest.importorskip("ray")
    # The sockets in it have paths of at most 107 bytes.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    (Path(folder) / "ray").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(REPO), str(REPO / "tests")]))
        import ray
        from ray._private import node, services
        from ray._raylet import Config
        from ray.cluster_utils import Cluster

        Config.initialize("")  # it is read when Ray is imported, which another test may have done
        patch.setattr(services, "get_node", _patient(services.get_node))
        patch.setattr(Cluster._wait_for_node, "__defaults__", (STARTED_S,))
        started = list[Any]()
        patch.setattr(node, "Node", _recorded(node.Node, started))
        patch.setattr(Cluster, "add_node", _again(Cluster.add_node, started))
        cluster = Cluster()
        try:
            for _ in range(2):
                cluster.add_node(**NODE)
            ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
            for each in (folder, INDEX_FOLDER):
                shutil.rmtree(each, ignore_errors=True)


def _patient(get_node: Callable[..., Any]) -> Callable[..., Any]:
    """The same, which waits for a node that is not there yet."""

    def wait(*arguments: Any) -> Any:
        ends = time.monotonic() + STARTED_S
        while True:
            try:
                return get_node(*arguments)
            except RuntimeError:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.1)

    return wait


def _recorded(kind: type[Any], started: list[Any]) -> type[Any]:
    """A class of nodes that are known when their start fails."""

    class Recorded(kind):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            started.append(self)
            super().__init__(*arguments, **options)

    return Recorded


def _again(add_node: Callable[..., Any], started: list[Any]) -> Callable[..., Any]:
    """The same, which begins a node again that does not come up."""

    def add(cluster: Any, **options: Any) -> Any:
        for attempts_left in reversed(range(5)):
            try:
                return add_node(cluster, **options)
            except Exception:
                if not attempts_left:
                    raise
                failed = started[-1]
                cluster.worker_nodes.discard(failed)
                if cluster.head_node is failed:
                    cluster.head_node = None
                failed.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        raise AssertionError

    return add
