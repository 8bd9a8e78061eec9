"""Tables of the runs that wrote to the catalogue: what they refused, and what they changed."""

from __future__ import annotations

from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
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

from app.db.schema.columns import metadata, moment

ingest_run = Table(
    "ingest_run",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("source", Text, nullable=False),
    Column("model_id", Integer, ForeignKey("model.id", ondelete="SET NULL")),
    Column("state", Text, nullable=False, server_default="running"),
    Column("report", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    moment("started_at"),
    Column("finished_at", DateTime(timezone=True)),
    Column(
        "kind", Text, nullable=False, server_default="ingest", comment="ingest, delete or undo"
    ),
    Column("undoes", BigInteger, comment="the run that an undo takes back"),
    Column(
        "history_bytes", BigInteger, nullable=False, server_default=text("0"),
        comment="approximate size of what is kept to undo the run; 0: it cannot be undone",
    ),
    CheckConstraint("state IN ('running', 'finished', 'failed')", name="state"),
)  # fmt: skip

product_history = Table(
    "product_history",
    metadata,
    Column("id", BigInteger, Identity(always=True)),
    Column("run_id", BigInteger, ForeignKey("ingest_run.id", ondelete="CASCADE")),
    Column("sku", Text, nullable=False),
    Column(
        "before", JSONB,
        comment="the columns that were changed, as they were, or all of a deleted product; null: "
        "added",
    ),
    Column(
        "after", LargeBinary,
        comment="sha256 of the product as the run left it; null: deleted",
    ),
    PrimaryKeyConstraint("run_id", "id"),
    comment="the products that a run added, changed or deleted",
)  # fmt: skip

picture_history = Table(
    "picture_history",
    metadata,
    Column("run_id", BigInteger, ForeignKey("ingest_run.id", ondelete="CASCADE")),
    Column("sha256", LargeBinary),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("thumbnail", LargeBinary, nullable=False),
    PrimaryKeyConstraint("run_id", "sha256"),
    Index("picture_history_sha256_idx", "sha256"),
    comment="pictures that a run deleted, because no product showed them",
)

embedding_history = Table(
    "embedding_history",
    metadata,
    Column("run_id", BigInteger),
    Column("sha256", LargeBinary),
    Column("model_id", Integer),
    Column("vec", HALFVEC, nullable=False),
    PrimaryKeyConstraint("run_id", "sha256", "model_id"),
    ForeignKeyConstraint(
        ["run_id", "sha256"], ["picture_history.run_id", "picture_history.sha256"],
        ondelete="CASCADE",
    ),
    Index("embedding_history_sha256_idx", "sha256"),
    comment="embeddings of the pictures in picture_history",
)  # fmt: skip

ingest_reject = Table(
    "ingest_reject",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("run_id", BigInteger, ForeignKey("ingest_run.id", ondelete="CASCADE"), nullable=False),
    Column("line", BigInteger),
    Column("sku", Text),
    Column("image", Text),
    Column("reason", Text, nullable=False),
    Index("ingest_reject_run_id_idx", "run_id"),
)
