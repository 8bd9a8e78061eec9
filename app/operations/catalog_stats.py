"""Overview of the catalogue for operators: health checks, row counts and recent ingests."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, Engine

from app.config import Settings
from app.db.engine import check_schema, snapshot
from app.db.queries import catalog_stats, models
from app.db.queries.catalog_stats import NEWEST_PICTURES as NEWEST_PICTURES
from app.db.queries.catalog_stats import CatalogCounts as CatalogCounts
from app.db.queries.catalog_stats import EmbeddedCount
from app.db.queries.catalog_stats import RejectedRow as RejectedRow
from app.db.queries.catalog_stats import RunSummary as RunSummary
from app.errors import LookalikeError
from app.index.file_store import IndexFiles
from app.operations.health import HealthCheck, HealthStatus, run_checks

LISTED_RUNS = 20
"""Number of ingests that are listed."""


@dataclass(frozen=True, slots=True)
class CatalogContents:
    """Row counts of the catalogue, and the last ingests, newest first."""

    counts: CatalogCounts
    embedded: tuple[EmbeddedCount, ...]
    runs: tuple[RunSummary, ...]


@dataclass(frozen=True, slots=True)
class CatalogOverview:
    """All health checks, and the contents; None when a failed check prevents reading them."""

    status: HealthStatus
    contents: CatalogContents | None


def overview(engine: Engine, files: IndexFiles, settings: Settings) -> CatalogOverview:
    """Read the overview in one snapshot; never raises LookalikeError."""
    try:
        with snapshot(engine) as connection:
            status = run_checks(connection, files, settings)
            known = any(check.name == "model" and check.ok for check in status.checks)
            return CatalogOverview(status, _contents(connection) if known else None)
    except LookalikeError as exc:
        return CatalogOverview(
            HealthStatus((HealthCheck("database", None, False, str(exc)),)), None
        )


def ingest_rejects(engine: Engine, run_id: int, limit: int) -> list[RejectedRow]:
    """The first `limit` rejects of an ingest, in source order."""
    with snapshot(engine) as connection:
        check_schema(connection)
        return list(catalog_stats.rejects(connection, run_id, limit))


def _contents(connection: Connection) -> CatalogContents:
    model = models.active(connection)
    assert model is not None, "the checks found one in this snapshot"
    counts = catalog_stats.counts(connection, model)
    return CatalogContents(
        counts,
        tuple(catalog_stats.embedding_counts(connection)),
        tuple(catalog_stats.runs(connection, LISTED_RUNS)),
    )
