"""One look at the database: the build in use, how much changed since, and how building went."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import inf

from sqlalchemy import Connection, Engine

from app.db.engine import check_schema, snapshot
from app.db.queries import build_history, embeddings, index_builds, index_delta, models
from app.errors import NoModel
from app.types import Build, Model


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen; without a build, `delta` is every embedding. Counts stop past `max_delta`."""

    build: Build | None
    delta: int
    gone: int
    """Rows of the build that were deleted since, when last counted."""
    record: build_history.Record


class Looker:
    """Looks at one database; remembers what is dear to count."""

    def __init__(self, engine: Engine, max_delta: int, recount_s: float = inf) -> None:
        self._engine = engine
        self._at_most = max_delta + 1  # past every rule
        self._gone = (0, 0)  # rows gone from the build with this id
        self._recount_s = recount_s
        self._counted = -inf

    def look(self, *, count_gone: bool) -> Look:
        """See everything in one snapshot. Raises NoModel, SchemaMismatch, DatabaseUnavailable.

        Counting what is gone reads the whole table; without `count_gone` it is done once a build,
        and when `recount_s` seconds have passed since.
        """
        with snapshot(self._engine) as connection:
            check_schema(connection)
            model = models.active(connection)
            if model is None:
                raise NoModel()
            build = next(iter(index_builds.usable(connection, model.id)), None)
            delta = self._delta(connection, model, build)
            gone = self._count_gone(connection, build, delta, count_gone)
            return Look(build, delta, gone, build_history.record(connection, model.id, build))

    def blame(self, build: Build) -> str:
        """Why a build may have left rows out, in words, as far as this user may know."""
        with self._engine.connect() as connection:
            if index_delta.rows_from_the_future(connection, build.model_id):
                return "Rows carry stamps of another server's future; run `lookalike migrate`."
            if found := build_history.holders(connection):
                return f"Open transactions that write: {'; '.join(map(str, found))}."
            return "No transaction is open now: rows change faster than builds can follow."

    def _delta(self, connection: Connection, model: Model, build: Build | None) -> int:
        if build is None:
            return embeddings.count(connection, model, at_most=self._at_most)
        return index_delta.delta_rows(connection, build, self._at_most)

    def _count_gone(
        self, connection: Connection, build: Build | None, delta: int, anew: bool
    ) -> int:
        if build is None:
            return 0
        now = time.monotonic()
        if anew or self._gone[0] != build.id or now - self._counted >= self._recount_s:
            self._counted = now
            self._gone = (build.id, index_delta.gone_rows(connection, build, delta))
        return self._gone[1]
