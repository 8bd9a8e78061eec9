"""What the tables of all rooms share: the metadata, types and columns."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    MetaData,
    text,
)
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType

VEC_COMMENT = "unit-length embedding, float16; compare with <=> (cosine)"
STAMP_COMMENT = (
    "transaction that last wrote this row; set by a trigger, whatever the statement says"
)


class _PlainType(UserDefinedType[Any]):
    """A PostgreSQL type that SQLAlchemy knows only by its name."""

    cache_ok = True
    spelling = ""

    def get_col_spec(self, **_: Any) -> str:
        return self.spelling


class Xid8(_PlainType):
    """A 64-bit transaction id, which never wraps around."""

    spelling = "xid8"


class PgSnapshot(_PlainType):
    """The set of transactions that a query sees."""

    spelling = "pg_snapshot"


for _type in (Xid8, PgSnapshot):
    ischema_names.setdefault(_type.spelling, _type)

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)


def moment(name: str) -> Column[Any]:
    """A time, by default now."""
    return Column(name, DateTime(timezone=True), nullable=False, server_default=text("now()"))


def count(name: str) -> Column[int]:
    """A number, by default 0."""
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


def stamp() -> Column[Any]:
    """The column `changed_in`, which a trigger sets."""
    return Column(
        "changed_in", Xid8, nullable=False, server_default=text("'0'::xid8"), index=True,
        comment=STAMP_COMMENT,
    )  # fmt: skip
