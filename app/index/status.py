"""Status of the index for operators: recent builds, the build in use and the delta."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine

from app.config import Settings
from app.db.engine import check_schema, snapshot
from app.db.queries import database_info, embeddings, index_builds, index_delta, models
from app.index.rebuild_policy import RebuildRules, most_changes
from app.types import Build, Model

LISTED_BUILDS = 50
"""Number of builds that are listed."""


@dataclass(frozen=True, slots=True)
class DeltaStatus:
    """The embeddings that changed since the build in use; without a build, all of them.

    `rows` is counted up to `max_rows` + 1, because above `max_rows` pgvector answers instead of the
    index. A worker rebuilds above `worker_rows` at the latest. `now` is the database's clock.
    """

    rows: int
    worker_rows: float
    max_rows: int
    now: datetime


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """The last builds in any state, newest first; the build in use, if any; and the delta."""

    builds: tuple[Build, ...]
    in_use: Build | None
    delta: DeltaStatus


def index_status(engine: Engine, settings: Settings) -> IndexStatus:
    """Read the status in one snapshot. Raises NoModel, SchemaMismatch, DatabaseUnavailable."""
    with snapshot(engine) as connection:
        check_schema(connection)
        model = models.require_active(connection)
        in_use = next(iter(index_builds.usable(connection, model.id)), None)
        delta = _delta(connection, model, in_use, settings)
        return IndexStatus(tuple(index_builds.latest(connection, LISTED_BUILDS)), in_use, delta)


def _delta(
    connection: Connection, model: Model, in_use: Build | None, settings: Settings
) -> DeltaStatus:
    most = settings.max_delta_rows
    if in_use is None:
        rows, worker_rows = embeddings.count_up_to(connection, model, at_most=most + 1), 0.0
    else:
        rows = index_delta.delta_rows(connection, in_use, most + 1)
        worker_rows = most_changes(in_use.rows, RebuildRules.from_settings(settings))
    now = database_info.server_time(connection)
    return DeltaStatus(rows, worker_rows, most, now)
