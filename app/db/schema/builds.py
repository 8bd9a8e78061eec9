"""Tables of the builds of the index, and of their files in pieces."""

from __future__ import annotations

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from app.db.schema.columns import PgSnapshot, count, metadata, moment

index_build = Table(
    "index_build",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("model_id", Integer, ForeignKey("model.id", ondelete="CASCADE"), nullable=False),
    Column("cluster", Text, nullable=False),
    Column("snapshot", PgSnapshot),
    Column("kind", Text),
    Column("parameters", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    count("rows"),
    Column("sha256", Text),
    count("size"),
    Column("recall_at_10", REAL),
    Column("recall_sample", Integer),
    Column("seconds", Double),
    Column("state", Text, nullable=False, server_default="building"),
    Column("reason", Text),
    moment("started_at"),
    Column("finished_at", DateTime(timezone=True)),
    Column("recall_at_50", REAL),
    Column("stamped_by", Text),
    Column("recall_filtered", REAL),
    CheckConstraint("state IN ('building', 'published', 'rejected', 'retired')", name="state"),
    CheckConstraint(
        "state <> 'published' OR (snapshot IS NOT NULL AND sha256 IS NOT NULL)", name="published"
    ),
    Index("index_build_model_id_state_idx", "model_id", "state"),
)

index_chunk = Table(
    "index_chunk",
    metadata,
    Column("build_id", BigInteger, ForeignKey("index_build.id", ondelete="CASCADE")),
    Column("number", Integer),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("build_id", "number"),
)
