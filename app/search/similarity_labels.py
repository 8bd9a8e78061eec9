"""Labels the similarities of matches by the calibration of their model, which is cached."""

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
from app.search.explain import SearchOutcome
from app.types import Calibration, Match, label_for

FRESH_S = 60.0
"""Seconds after which calibrations are read again."""

_log = logging.getLogger(__name__)


class CalibrationCache:
    """Caches the calibrations of models. Thread-safe.

    A search never fails because of them or waits for them: while one thread reads, the others use
    the previous ones.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._rows: dict[int, Mapping[str | None, Calibration]] = {}
        self._read_at: dict[int, float] = {}

    def calibrations(self, model_id: int) -> Mapping[str | None, Calibration]:
        """The calibrations of a model by category, None is that of the whole catalogue; empty if it
        has none."""
        now = time.monotonic()
        if now >= self._read_at.get(model_id, -FRESH_S) + FRESH_S and self._lock.acquire(False):
            try:
                self._read_at[model_id] = now
                self._rows[model_id] = self._read(model_id)
            except (LookalikeError, SQLAlchemyError) as exc:
                _log.debug("the calibration could not be read: %s", exc)
            finally:
                self._lock.release()
        return self._rows.get(model_id, {})

    def _read(self, model_id: int) -> Mapping[str | None, Calibration]:
        with self._engine.connect() as connection:
            return {row.category: row for row in calibration.read(connection, model_id)}


def label(
    matches: tuple[Match, ...], calibrations: Mapping[str | None, Calibration]
) -> tuple[Match, ...]:
    """The matches, each with the label of its similarity.

    Only for queries by picture: cut-offs are fitted from pairs of pictures, and the distances
    between words and pictures are larger.
    """
    return tuple(_labelled(match, calibrations) for match in matches) if calibrations else matches


def _labelled(match: Match, calibrations: Mapping[str | None, Calibration]) -> Match:
    if match.similarity is None:
        return match
    label = label_for(1 - match.similarity, match.product.category, calibrations)
    return replace(match, means=label)


def labelled(
    outcome: SearchOutcome, calibrations: Mapping[str | None, Calibration]
) -> SearchOutcome:
    """The outcome with the labels of similarities."""
    if not calibrations:
        return outcome
    regions = tuple(
        replace(region, matches=label(region.matches, calibrations)) for region in outcome.regions
    )
    return replace(outcome, matches=label(outcome.matches, calibrations), regions=regions)
