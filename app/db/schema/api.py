"""Tables of the HTTP API."""

from __future__ import annotations

from sqlalchemy import (
    REAL,
    CheckConstraint,
    Column,
    DateTime,
    LargeBinary,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from app.db.schema.columns import metadata, moment

query_photo = Table(
    "query_photo",
    metadata,
    Column("id", Text, primary_key=True),
    Column(
        "fingerprint", Text, nullable=False, comment="of the encoder that the vectors are from"
    ),
    Column(
        "vector", LargeBinary, nullable=False,
        comment="unit vector of the whole photo, float32, little-endian",
    ),
    Column(
        "objects", JSONB,
        comment="what was found in the photo; null: the encoder finds no objects",
    ),
    Column("preview", LargeBinary, nullable=False, comment="JPEG"),
    moment("created_at"),
    Column("expires_at", DateTime(timezone=True), nullable=False, index=True),
    comment="photos that were sent to search with, without the photo: vector, objects and a "
    "preview",
)  # fmt: skip

api_key = Table(
    "api_key",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column(
        "digest", LargeBinary, nullable=False, comment="sha256 of the 256 random bits of the key"
    ),
    Column("rate", REAL, comment="requests a second, in each process; null: no limit"),
    Column(
        "origins", ARRAY(Text), nullable=False, server_default=text("'{}'"),
        comment="origins whose pages may use the key in a browser",
    ),
    moment("created_at"),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    Column(
        "records", Text, nullable=False, server_default=text("'nothing'"),
        comment="what is recorded of searches with the key: nothing, what was shown, or the query "
        "too",
    ),
    CheckConstraint("records IN ('nothing', 'results', 'queries')", name="records"),
    CheckConstraint("scope IN ('search', 'write', 'admin')", name="scope"),
    CheckConstraint("octet_length(digest) = 32", name="digest"),
    CheckConstraint("rate > 0", name="rate"),
    comment="keys of the HTTP API; the key itself is not kept",
)  # fmt: skip

api_secret = Table(
    "api_secret",
    metadata,
    Column("name", Text, primary_key=True),
    Column("secret", LargeBinary, nullable=False),
    comment="secrets that all processes of the HTTP API share, by their use",
)
