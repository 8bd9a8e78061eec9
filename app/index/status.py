"""The life of the index as those see it who look after it: its builds, and what came since."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, text

from app.config import Settings
from app.db.engine import check_schema, snapshot
from app.db.queries import embeddings, index_builds, index_delta, models
from app.errors import NoModel
from app.index.rebuild_policy import RebuildRules, allowed
from app.types import Build, Model

BUILDS = 50
"""Builds that are listed."""


@dataclass(frozen=True, slots=True)
class DeltaStatus:
    """The embeddings that changed since the build in use; without one, all there are.

    `rows` are counted to `most_rows` + 1, for beyond `most_rows` pgvector answers instead of the
    index. A worker builds when there are more than `worker_rows`. `now` is the database's clock.
    """

    rows: int
    worker_rows: float
    most_rows: int
    now: datetime


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """The last builds in any state, newest first, the one in use if there is one, and the delta."""

    builds: tuple[Build, ...]
    in_use: Build | None
    delta: DeltaStatus


def index_life(engine: Engine, settings: Settings) -> IndexStatus:
    """All of it, in one snapshot. Raises NoModel, SchemaMismatch and DatabaseUnavailable."""
    with snapshot(engine) as connection:
        check_schema(connection)
        model = models.active(connection)
        if model is None:
            raise NoModel()
        in_use = next(iter(index_builds.usable(connection, model.id)), None)
        delta = _delta(connection, model, in_use, settings)
        return IndexStatus(tuple(index_builds.latest(connection, BUILDS)), in_use, delta)


def _delta(
    connection: Connection, model: Model, in_use: Build | None, settings: Settings
) -> DeltaStatus:
    most = settings.max_delta_rows
    if in_use is None:
        rows, worker_rows = embeddings.count_up_to(connection, model, at_most=most + 1), 0.0
    else:
        rows = index_delta.delta_rows(connection, in_use, most + 1)
        worker_rows = allowed(in_use.rows, RebuildRules.from_settings(settings))
    now = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return DeltaStatus(rows, worker_rows, most, now)
