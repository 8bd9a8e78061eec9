"""Meanings: puts words beside the similarities of matches, at next to no cost to a search."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from app.db.queries import calibration
from app.errors import LookalikeError
from app.types import Calibration, Match, label_for

FRESH_S = 60.0
"""A new calibration is spoken after at most this time."""

_log = logging.getLogger(__name__)


class SimilarityLabeler:
    """The calibrations of models, read once a minute. Safe to use from several threads.

    A search never fails or waits for them: while one thread reads, others use what there was.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._rows: dict[int, Mapping[str | None, Calibration]] = {}
        self._read_at: dict[int, float] = {}

    def spoken(self, matches: tuple[Match, ...], model_id: int) -> tuple[Match, ...]:
        """The matches, each with what its similarity means under the model.

        Only for matches of a picture: cut-offs are fitted from pictures, and words lie elsewhere.
        """
        rows = self._of(model_id)
        if not rows or not matches:
            return matches
        return tuple(_spoken(match, rows) for match in matches)

    def _of(self, model_id: int) -> Mapping[str | None, Calibration]:
        now = time.monotonic()
        if now >= self._read_at.get(model_id, -FRESH_S) + FRESH_S and self._lock.acquire(False):
            try:
                self._read_at[model_id] = now
                self._rows[model_id] = self._read(model_id)
            except (LookalikeError, SQLAlchemyError) as exc:
                _log.debug("what distances mean could not be read: %s", exc)
            finally:
                self._lock.release()
        return self._rows.get(model_id, {})

    def _read(self, model_id: int) -> Mapping[str | None, Calibration]:
        with self._engine.connect() as connection:
            return {row.category: row for row in calibration.read(connection, model_id)}


def _spoken(match: Match, rows: Mapping[str | None, Calibration]) -> Match:
    if match.similarity is None:
        return match
    return replace(match, means=label_for(1 - match.similarity, match.product.category, rows))
