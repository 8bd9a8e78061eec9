"""SQLAlchemy metadata of all tables, which tests compare with the migrations in `alembic/versions`.

Partitions, the stamp triggers and pgvector's indexes are not in it: SQLAlchemy cannot describe
them.
"""

from __future__ import annotations

from app.db.schema import api, builds, catalogue, events, models, runs, versions
from app.db.schema.columns import metadata

SCHEMA_REVISION = "0019"
"""The migration that this code needs; a test compares it with the newest one in `alembic/`."""

__all__ = [
    "SCHEMA_REVISION", "api", "builds", "catalogue", "events", "metadata", "models", "runs",
    "versions",
]  # fmt: skip
