"""Health checks of the database, the catalogue and the index, and the liveness of a process."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from app.config import Settings
from app.db.dsn import without_password
from app.db.engine import check_schema, check_server, schema_revision, snapshot
from app.db.queries import (
    calibration,
    catalog_stats,
    database_info,
    index_builds,
    index_delta,
    models,
    pgvector_index,
)
from app.db.schema import SCHEMA_REVISION
from app.encoders.compiled_cache import CompiledCache
from app.encoders.embedded_versions import offer, outdated
from app.errors import IndexUnreadable, LookalikeError
from app.index.file_store import IndexFiles
from app.search import confidence
from app.types import Build, Model


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """Result of one check: the observed value, whether it is healthy, and what to do otherwise.

    A healthy check may have `advice` too, when a problem is near.
    """

    name: str
    value: Any
    ok: bool = True
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class HealthStatus:
    """All checks; healthy if each of them is."""

    checks: tuple[HealthCheck, ...]

    @property
    def healthy(self) -> bool:
        return all(check.ok for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """`healthy`, and `value`, `ok` and `advice` by the name of each check."""
        parts = {check.name: asdict(check) for check in self.checks}
        for part in parts.values():
            del part["name"]
        return {"healthy": self.healthy, **parts}


def status(engine: Engine, files: IndexFiles, settings: Settings) -> HealthStatus:
    """Run all checks in one snapshot of the database; never raises LookalikeError.

    No vectors, thumbnails or index files are read: checks that take long in a large catalogue
    belong to `integrity.check`.
    """
    try:
        with snapshot(engine) as connection:
            return run_checks(connection, files, settings)
    except LookalikeError as exc:
        return HealthStatus((HealthCheck("database", None, False, str(exc)),))


def run_checks(connection: Connection, files: IndexFiles, settings: Settings) -> HealthStatus:
    """Run all checks on a connection; an error ends them and is reported as the last check."""
    checks: list[HealthCheck] = []
    try:
        for check in _checks(connection, files, settings):
            checks.append(check)
    except LookalikeError as exc:
        name = "migration" if checks else "database"
        checks.append(HealthCheck(name, None, False, str(exc)))
    return HealthStatus(tuple(checks))


def _checks(connection: Connection, files: IndexFiles, settings: Settings) -> Iterator[HealthCheck]:
    version = database_info.server_version(connection)
    check_server(connection)
    address = without_password(connection.engine.url.render_as_string())
    yield HealthCheck("database", f"PostgreSQL {version}, {address}")
    check_schema(connection)
    yield _migration(schema_revision(connection))
    model = models.active(connection)
    if model is None:
        yield HealthCheck("model", None, False, "No model is recorded; run `lookalike init`.")
        return
    advice = offer(model) if outdated(model) else None
    yield HealthCheck("model", f"{model.name}, {model.dim} dimensions", advice=advice)
    yield _encoder(model, settings)
    embeddings = yield from _contents(connection, model)
    yield _pgvector(connection, model)
    yield from _index(connection, model, embeddings, files, settings)
    yield _close_match(connection, model, embeddings)


def _encoder(model: Model, settings: Settings) -> HealthCheck:
    """The library that encoded pictures when the model was last loaded on this machine; this check
    loads nothing."""
    state = CompiledCache(settings.compiled_cache_folder).load_state(model.fingerprint)
    if state is None:
        return HealthCheck("encoder", None)
    advice = (
        f"Pictures are encoded slower than they could be: {state.reason}." if state.reason else None
    )
    return HealthCheck("encoder", state.library, advice=advice)


def _migration(revision: str | None) -> HealthCheck:
    if revision == SCHEMA_REVISION:
        return HealthCheck("migration", revision)
    note = (
        f"It still serves this version, which is written for {SCHEMA_REVISION}; update Lookalike."
    )
    return HealthCheck("migration", revision, advice=note)


def _contents(connection: Connection, model: Model) -> Generator[HealthCheck, None, int]:
    counts = catalog_stats.row_counts(connection, model)

    def shown(number: int) -> int | str:
        return f"about {number:,}" if counts.estimated else number

    yield HealthCheck("products", shown(counts.products))
    yield HealthCheck("pictures", shown(counts.pictures))
    missing, which = counts.without_embedding, ""
    if counts.estimated:
        which = f"of the newest {catalog_stats.NEWEST_PICTURES:,} "
    advice = f"{missing} {which}pictures have no embedding under {model.name}; ingest them again."
    yield HealthCheck(
        "embeddings", shown(counts.embeddings), not missing, advice if missing else None
    )
    return counts.embeddings


def _pgvector(connection: Connection, model: Model) -> HealthCheck:
    name = "pgvector_index"
    if index := pgvector_index.measured(connection, model.id):
        value = (
            f"{index.lists:,} lists, {index.probes:,} of them searched; recall@10 "
            f"{index.recall_at_10:.3f} over {index.rows:,} embeddings when it was built"
        )
        return HealthCheck(name, value)
    if pgvector_index.busy(connection, model.id):
        return HealthCheck(name, "being built")
    if not pgvector_index.has_rows(connection, model, pgvector_index.MIN_ROWS):
        return HealthCheck(name, f"none, as for all below {pgvector_index.MIN_ROWS:,} embeddings")
    advice = (
        "It is missing, so searches without a build compare all embeddings. A worker whose role "
        "owns the tables builds it, and so does `lookalike check --repair`."
    )
    return HealthCheck(name, None, False, advice)


def _close_match(connection: Connection, model: Model, embeddings: int) -> HealthCheck:
    """From which similarity on a photo has a close match. Without a fit to the catalogue searches
    are right all the same, so the check does not fail."""
    name = "close_match"
    cut = calibration.close_cut(connection, model.id)
    if cut is not None and cut.similarity is not None:
        return HealthCheck(name, f"calibrated: from a similarity of {cut.similarity:.3f} on")
    if cut is not None:
        photos = f"{cut.present} photos of present and {cut.absent} of absent products"
        return HealthCheck(
            name, f"calibrated: {photos} gave no cut-off", advice="`lookalike calibrate` says why."
        )
    shipped = confidence.SHIPPED.get(model.fingerprint)
    value = "not calibrated, and nothing is claimed"
    if shipped is not None:
        value = f"not calibrated: from a similarity of {shipped.whole.close:.3f} on, as shipped"
    advice = "Run `lookalike calibrate` to fit to this catalogue when a photo has no close match."
    return HealthCheck(name, value, advice=advice if embeddings else None)


def _index(
    connection: Connection, model: Model, embeddings: int, files: IndexFiles, settings: Settings
) -> Iterator[HealthCheck]:
    build = next(iter(index_builds.usable(connection, model.id)), None)
    if build is None:
        advice = "No index is built; pgvector answers. Run `lookalike index rebuild`."
        yield HealthCheck("build", None, embeddings == 0, advice if embeddings else None)
        yield HealthCheck("build_age_seconds", None)
        yield HealthCheck("delta_rows", None)
        return
    yield _file(build, files)
    now = database_info.server_time(connection)
    age = (now - build.finished_at).total_seconds() if build.finished_at else None
    yield HealthCheck("build_age_seconds", age and round(age, 1))
    allowed = settings.max_delta_rows
    delta = index_delta.delta_rows(connection, build, allowed + 1)
    advice = f"More than {allowed} embeddings changed; run `lookalike index rebuild`."
    yield HealthCheck("delta_rows", delta, delta <= allowed, advice if delta > allowed else None)


def _file(build: Build, files: IndexFiles) -> HealthCheck:
    recall = "" if build.recall_at_10 is None else f", recall@10 {build.recall_at_10:.3f}"
    value = f"{build.id}: {build.kind}, {build.rows} rows{recall}"
    try:
        files.check(build)
    except IndexUnreadable as exc:
        return HealthCheck("build", value, False, f"{exc}. Run `lookalike index rebuild`.")
    return HealthCheck("build", value)


DATABASE_CHECK_INTERVAL_S = 1.0
"""Seconds for which the result of the database check is reused."""


class Liveness:
    """State behind /healthz of one process. Thread-safe.

    After `stale_s` seconds without a call of `succeeded` the process is unhealthy; None disables
    this check.
    """

    def __init__(self, engine: Engine, stale_s: float | None = None) -> None:
        self._engine = engine
        self._stale_s = stale_s
        self._lock = threading.Lock()
        self._database_checked = float("-inf")
        self._database = HealthCheck("database", None)
        self._succeeded = time.monotonic()
        self._error: str | None = None

    def succeeded(self) -> None:
        """Record that the process did its work."""
        self._succeeded = time.monotonic()
        self._error = None

    def failed(self, error: str) -> None:
        """Record an error that kept the process from its work."""
        self._error = error

    def status(self) -> HealthStatus:
        """The current checks."""
        with self._lock:
            if time.monotonic() - self._database_checked >= DATABASE_CHECK_INTERVAL_S:
                self._database = self._check_database()
                self._database_checked = time.monotonic()
            database = self._database
        if self._stale_s is None:
            return HealthStatus((database,))
        return HealthStatus(
            (database, self._success(self._stale_s), HealthCheck("last_error", self._error))
        )

    def _success(self, stale_s: float) -> HealthCheck:
        ago = time.monotonic() - self._succeeded
        advice = None
        if ago > stale_s:
            advice = f"Nothing succeeded for {stale_s:g} s. {self._error or 'No error was met.'}"
        return HealthCheck("last_success_seconds", round(ago, 1), advice is None, advice)

    def _check_database(self) -> HealthCheck:
        try:
            with self._engine.connect() as connection:
                database_info.ping(connection)
        except (LookalikeError, SQLAlchemyError) as exc:
            return HealthCheck("database", None, False, str(exc))
        return HealthCheck("database", "reachable")
