"""The table that tells which versions of the code run on a database."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Table,
    Text,
)

from app.db.schema.columns import metadata

schema_serves = Table(
    "schema_serves",
    metadata,
    Column(
        "code_since", Text, primary_key=True,
        comment="the migration that code is written for; raised by a migration that older code "
        "cannot run on",
    ),
    comment="one row: the oldest code that runs on this database",
)  # fmt: skip
