"""A worker in a thread of the test process, with short pauses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from app.bootstrap import App
from app.operations.worker import Worker, WorkerObservation

SOON_S = 300.0


QUICK: dict[str, Any] = {
    "worker_share": 0.1,
    "worker_every_s": 0.0,
    "worker_age_s": 3600.0,
    "worker_look_s": 0.01,
    "worker_poll_s": 0.05,
    "worker_backoff_s": 0.05,
    "worker_backoff_max_s": 0.4,
}


# The running worker


class WorkerThread:
    """A worker in a thread, with the values that tests observe."""

    def __init__(self, app: App, sql: psycopg.Connection, **settings: Any) -> None:
        self.settings = app.settings.model_copy(update=QUICK | settings)
        self.stop = threading.Event()
        self.worker = Worker(app.engine, app.indexer, self.settings, self.stop)
        self.sql = sql
        self.thread = threading.Thread(target=self.worker.run)
        self.observations = 0
        self._observe = self.worker._observer.observe
        self.worker._observer.observe = self._counted  # type: ignore[method-assign]

    def _counted(self, *, count_deleted: bool) -> WorkerObservation:
        self.observations += 1
        return self._observe(count_deleted=count_deleted)

    def observe_again(self) -> None:
        """Wait until the worker has observed the database, and acted on it, at least once more."""
        before = self.observations
        wait_until(lambda: self.observations >= before + 3)

    def published(self) -> int:
        return self.count("state IN ('published', 'retired')")

    def count(self, where: str = "true") -> int:
        row = self.sql.execute(f"SELECT count(*) FROM index_build WHERE {where}").fetchone()  # type: ignore[arg-type]
        assert row is not None
        return int(row[0])

    def value(self, name: str, **labels: str) -> float:
        return self.worker.metrics.registry.get_sample_value(f"lookalike_{name}", labels) or 0.0


def wait_until(condition: Callable[[], bool], within_s: float = SOON_S) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.02)


@contextmanager
def running(runner: WorkerThread) -> Iterator[WorkerThread]:
    runner.thread.start()
    try:
        yield runner
    finally:
        runner.stop.set()
        runner.thread.join(SOON_S)
        assert not runner.thread.is_alive()
