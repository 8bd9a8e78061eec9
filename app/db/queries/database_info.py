"""SQL about the database as a whole: versions, relations, row counts, extension, statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from app.db import timeouts

RELATIONS = """
SELECT format('%I.%I', space.nspname, rel.relname)
FROM pg_class AS rel JOIN pg_namespace AS space ON space.oid = rel.relnamespace
WHERE rel.relkind = ANY(CAST(:kinds AS "char"[])) AND NOT rel.relispartition
    AND space.nspname !~ '^pg_' AND space.nspname <> 'information_schema'
    AND NOT EXISTS (
        SELECT FROM pg_depend AS member
        WHERE member.classid = 'pg_class'::regclass AND member.objid = rel.oid
            AND member.deptype = 'e')
ORDER BY 1"""
"""Relations of some kinds, without partitions and without the members of extensions."""

TABLES = ["r", "p"]
ALL_KINDS = [*TABLES, "v", "m", "S", "f"]


@dataclass(frozen=True, slots=True)
class Versions:
    """Versions of the server and of pgvector in this database, with pgvector's schema.

    The fields of pgvector are None if it is not installed.
    """

    postgresql: str
    major: int
    pgvector: str | None
    pgvector_schema: str | None


def versions(connection: Connection) -> Versions:
    """The versions that this database runs on."""
    row = connection.execute(
        text(
            """SELECT current_setting('server_version') AS postgresql,
                current_setting('server_version_num')::integer / 10000 AS major,
                (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS pgvector,
                (SELECT nspname FROM pg_extension JOIN pg_namespace AS n ON n.oid = extnamespace
                 WHERE extname = 'vector') AS pgvector_schema"""
        )
    ).one()
    return Versions(row.postgresql, row.major, row.pgvector, row.pgvector_schema)


def server_version(connection: Connection) -> str:
    """The version of the server, which needs no pgvector and no tables."""
    return str(connection.execute(text("SHOW server_version")).scalar_one())


def server_time(connection: Connection) -> datetime:
    """The time now by the server's clock."""
    now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now


def ping(connection: Connection) -> None:
    """Raise DatabaseUnavailable unless the server answers."""
    connection.execute(text("SELECT 1"))


def is_replica(connection: Connection) -> bool:
    """Whether this server is a read-only standby."""
    return bool(connection.execute(text("SELECT pg_is_in_recovery()")).scalar_one())


def tables(connection: Connection) -> list[str]:
    """Names of the tables, quoted for SQL, sorted."""
    return list(connection.execute(text(RELATIONS), {"kinds": TABLES}).scalars())


def relations(connection: Connection) -> list[str]:
    """Names of tables, views, sequences and foreign tables; a new database has none."""
    return list(connection.execute(text(RELATIONS), {"kinds": ALL_KINDS}).scalars())


def schemas(connection: Connection) -> list[str]:
    """The names of all schemas."""
    return list(connection.execute(text("SELECT nspname FROM pg_namespace")).scalars())


def finds_vector_type(connection: Connection) -> bool:
    """Whether the search path finds pgvector's types."""
    sql = "SELECT to_regtype('halfvec') IS NOT NULL"
    return bool(connection.execute(text(sql)).scalar_one())


def count_rows(connection: Connection, names: Sequence[str]) -> dict[str, int]:
    """Number of rows by table, named as in `tables`; without a statement timeout."""
    timeouts.set_for_transaction(connection, statement_s=0)
    plain = connection.execution_options(no_parameters=True)
    return {
        name: int(plain.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar_one())
        for name in names
    }


def current_snapshot(connection: Connection) -> str:
    """The snapshot of this transaction: which transactions it sees, as PostgreSQL prints it."""
    return str(connection.execute(text("SELECT pg_current_snapshot()::text")).scalar_one())


def export_snapshot(connection: Connection) -> str:
    """The name of this transaction's snapshot, which other sessions can use while it is open."""
    return str(connection.execute(text("SELECT pg_export_snapshot()")).scalar_one())


def create_extension(connection: Connection) -> None:
    """Install pgvector unless it is installed."""
    connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))


def analyse(
    connection: Connection, names: Sequence[str] = (), *, skip_locked: bool = False
) -> None:
    """Update the planner's statistics of these tables, quoted for SQL; without names, of all.

    With `skip_locked`, tables that cannot be locked at once are left out.
    """
    timeouts.set_for_transaction(connection, statement_s=0)
    how = "(SKIP_LOCKED) " if skip_locked else ""
    statement = f"ANALYZE {how}{', '.join(names)}"
    connection.execution_options(no_parameters=True).exec_driver_sql(statement)
