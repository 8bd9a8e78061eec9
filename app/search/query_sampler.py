"""QuerySampler: records the vectors of some searches, with which builds are measured.

A background thread writes them, so that no search waits. Vectors that cannot be written, or exceed
the queue, are dropped.
"""

from __future__ import annotations

import logging

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from app.concurrency import BackgroundQueue
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
        self._queue = BackgroundQueue[tuple[int, Vector]](
            self._write, most=MAX_QUEUED, interval_s=WRITE_INTERVAL_S, name="sample"
        )

    def offer(self, model_id: int, vector: Vector) -> None:
        """Queue a query's vector, shape (dim,), float32; never blocks."""
        self._queue.put((model_id, vector))

    def close(self) -> None:
        """Write the queued vectors and stop the thread."""
        self._queue.close()

    def _write(self, queued: list[tuple[int, Vector]]) -> None:
        by_model: dict[int, list[Vector]] = {}
        for model_id, vector in queued:
            by_model.setdefault(model_id, []).append(vector)
        try:
            for model_id, vectors in by_model.items():
                with self._engine.begin() as connection:
                    query_samples.add(connection, model_id, vectors)
        except (LookalikeError, SQLAlchemyError) as exc:
            _log.debug("query samples were not written: %s", exc)
