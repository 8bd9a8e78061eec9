"""Tables of recorded searches, of events on their results, and of photos kept with permission."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from app.db.schema.columns import metadata, moment

search_request = Table(
    "search_request",
    metadata,
    Column("query_id", Text),
    moment("at"),
    Column("kind", Text, nullable=False, comment="what was searched by, such as photo or text"),
    Column("k", Integer, nullable=False),
    Column("skipped", Integer, nullable=False, comment="products on the pages before this one"),
    Column("shown", ARRAY(Text), nullable=False, comment="skus of the matches, best first"),
    Column(
        "folded", ARRAY(Text), nullable=False,
        comment="skus that were collapsed into these matches",
    ),
    Column("model", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column(
        "words", Text,
        comment="words that were searched for; null, like the next three: none, or not to be kept",
    ),
    Column("sku", Text),
    Column("photo_id", Text),
    Column("filters", ARRAY(Text), comment="conditions of the search"),
    PrimaryKeyConstraint("query_id", "at"),
    Index(
        "search_request_photo_id_idx", "photo_id",
        postgresql_where=text("photo_id IS NOT NULL"),
    ),
    comment="searches of the HTTP API with keys that record them; a partition a day",
    postgresql_partition_by="RANGE (at)",
)  # fmt: skip

search_event = Table(
    "search_event",
    metadata,
    Column("query_id", Text),
    Column("id", Uuid, server_default=text("gen_random_uuid()")),
    Column(
        "at", DateTime(timezone=True), nullable=False, server_default=text("now()"),
        comment="when it was received",
    ),
    Column("action_name", Text, nullable=False),
    Column(
        "sku", Text, comment="the product (object_id); it may not exist any more, or never have"
    ),
    Column("position", Integer, comment="place on the page, as the client tells"),
    Column("client_id", Text),
    Column("session_id", Text),
    Column("application", Text),
    Column(
        "occurred_at", DateTime(timezone=True),
        comment="when it happened by the clock of the client",
    ),
    PrimaryKeyConstraint("query_id", "id", "at"),
    comment="what people did with results of searches, as their clients tell; a partition a day",
    postgresql_partition_by="RANGE (at)",
)  # fmt: skip

kept_photo = Table(
    "kept_photo",
    metadata,
    Column("id", Text, primary_key=True),
    Column("preview", LargeBinary, nullable=False, comment="JPEG"),
    Column(
        "kept_at", DateTime(timezone=True), nullable=False, server_default=text("now()"),
        index=True,
    ),
    comment="previews of photos that were searched with, kept to measure quality where the key "
    "allows it",
)  # fmt: skip
