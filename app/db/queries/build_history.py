"""SQL about past builds and about transactions that keep rows out of every new snapshot."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text

from app.db.queries import index_builds
from app.types import Build


@dataclass(frozen=True, slots=True)
class BuildHistory:
    """Recent builds of a model, in seconds of the database's clock.

    `age_s` is the age of the build in use and `since_last_build_s` the time since the last build
    ended, whatever its state; None where unknown. `took_s` is the duration of the last measured
    build. `failures` counts builds rejected since the last success, except those that were stopped.
    """

    age_s: float | None
    since_last_build_s: float | None
    took_s: float
    failures: int


@dataclass(frozen=True, slots=True)
class BlockingTransaction:
    """An open transaction; `who` is the pid of its backend, or its name if it is prepared."""

    who: str
    user: str | None
    application: str | None
    state: str | None
    age_s: float | None
    """Seconds since it began; None if this user may not see it."""

    def __str__(self) -> str:
        name = f"user {self.user or 'unknown'}, application {self.application or 'unnamed'}"
        since = "for an unknown time" if self.age_s is None else f"for {self.age_s:.0f} s"
        return f"{self.who} ({name}, {self.state or 'open'} {since})"


def build_history(connection: Connection, model_id: int, build: Build | None) -> BuildHistory:
    """The build history of a model in this cluster; `build` is the one in use."""
    sql = f"""
        WITH mine AS (
            SELECT id, state, reason, seconds, coalesce(finished_at, started_at) AS ended
            FROM index_build WHERE model_id = :model AND cluster = {index_builds.CLUSTER}
        ), good AS (SELECT max(id) AS id FROM mine WHERE state IN ('published', 'retired'))
        SELECT
            extract(epoch FROM clock_timestamp()
                - (SELECT ended FROM mine WHERE id = :build))::float8 AS age,
            extract(epoch FROM clock_timestamp() - max(ended))::float8 AS since_last,
            (SELECT seconds FROM mine WHERE seconds IS NOT NULL ORDER BY id DESC LIMIT 1) AS took,
            count(*) FILTER (WHERE state = 'rejected' AND reason IS DISTINCT FROM 'stopped'
                AND id > coalesce((SELECT id FROM good), 0)) AS failures
        FROM mine"""
    values = {"model": model_id, "build": build.id if build else None}
    row = connection.execute(text(sql), values).one()
    return BuildHistory(_past(row.age), _past(row.since_last), row.took or 0.0, row.failures)


def blocking_transactions(connection: Connection, limit: int = 5) -> list[BlockingTransaction]:
    """The oldest open transactions that write; no snapshot sees their rows until they end.

    Without pg_read_all_stats, state and age of other users' transactions are missing.
    """
    sql = """
        SELECT who, usename, application, state, extract(epoch FROM now - began)::float8 AS age
        FROM (
            SELECT 'pid ' || pid AS who, usename, application_name AS application, state,
                xact_start AS began, backend_xid AS xid, clock_timestamp() AS now
            FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
          UNION ALL
            SELECT 'prepared transaction ' || gid, owner, NULL, 'prepared', prepared,
                transaction, clock_timestamp()
            FROM pg_prepared_xacts
        ) AS open ORDER BY age(xid) DESC LIMIT :limit"""
    rows = connection.execute(text(sql), {"limit": limit})
    return [
        BlockingTransaction(r.who, r.usename, r.application, r.state, _past(r.age)) for r in rows
    ]


def _past(seconds: float | None) -> float | None:
    """The age, or None if it is negative because the clock was set back."""
    return seconds if seconds is not None and seconds >= 0 else None
