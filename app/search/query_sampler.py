"""QuerySampler: records the vectors of some searches, with which builds are measured.

A background thread writes them, so that no search waits. Vectors that cannot be written, or exceed
the queue, are dropped.
"""

from __future__ import annotations

import logging
import threading
from collections import deque

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from app.db.queries import query_samples
from app.errors import LookalikeError
from app.types import Vector

MAX_QUEUED = 64
"""Vectors that wait to be written; of a burst of searches the newest are kept."""

WRITE_INTERVAL_S = 1.0
"""The queued vectors are written together once per interval."""

_log = logging.getLogger(__name__)


class QuerySampler:
    """Writes vectors of searches in the background. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._queue: deque[tuple[int, Vector]] = deque(maxlen=MAX_QUEUED)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def offer(self, model_id: int, vector: Vector) -> None:
        """Queue a query's vector, shape (dim,), float32; never blocks."""
        self._queue.append((model_id, vector))
        with self._lock:
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._run, name="sample", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Write the queued vectors and stop the thread."""
        self._closing.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()
        self._write()

    def _run(self) -> None:
        while not self._closing.wait(WRITE_INTERVAL_S):
            self._write()

    def _write(self) -> None:
        by_model: dict[int, list[Vector]] = {}
        while self._queue:
            model_id, vector = self._queue.popleft()
            by_model.setdefault(model_id, []).append(vector)
        try:
            for model_id, vectors in by_model.items():
                with self._engine.begin() as connection:
                    query_samples.add(connection, model_id, vectors)
        except (LookalikeError, SQLAlchemyError) as exc:
            _log.debug("query samples were not written: %s", exc)
