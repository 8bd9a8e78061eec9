"""QuerySampler: keeps the vectors of some searches, after the answer and at nobody's cost.

A build is measured with what people really ask. The vectors are written by a thread of their own;
if that fails, or there are too many, they are forgotten.
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

WAITING = 64
"""Vectors that wait to be written; a burst of searches keeps its newest."""

PAUSE_S = 1.0
"""Vectors are written together, at most this often."""

_log = logging.getLogger(__name__)


class QuerySampler:
    """Takes vectors of searches and writes them in the background. Safe to use from threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: deque[tuple[int, Vector]] = deque(maxlen=WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def offer(self, model_id: int, vector: Vector) -> None:
        """Keep a query's vector, shape (dim,), float32; returns at once."""
        self._waiting.append((model_id, vector))
        with self._lock:
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._work, name="sample", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Write what waits and stop."""
        self._closing.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()
        self._write()

    def _work(self) -> None:
        while not self._closing.wait(PAUSE_S):
            self._write()

    def _write(self) -> None:
        by_model: dict[int, list[Vector]] = {}
        while self._waiting:
            model_id, vector = self._waiting.popleft()
            by_model.setdefault(model_id, []).append(vector)
        try:
            for model_id, vectors in by_model.items():
                with self._engine.begin() as connection:
                    query_samples.add(connection, model_id, vectors)
        except (LookalikeError, SQLAlchemyError) as exc:
            _log.debug("queries were not kept: %s", exc)
