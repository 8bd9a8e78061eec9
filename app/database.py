"""The engine: a pool of connections to the server the settings name, or to the embedded one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy
from pgvector.psycopg import register_vector
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app import embedded_server
from app.config import Settings
from app.driver_errors import translate
from app.errors import DatabaseUnavailable, DatabaseUnsuitable, SchemaMismatch
from app.tables import SCHEMA_REVISION

PREPARED = 20
"""Statements a quick connection keeps planned, each in about 0.7 MB of the server's memory."""

PGVECTOR_MINIMUM = (0, 8, 4)
"""0.8.2 to 0.8.4 repaired builds and vacuum of HNSW."""


def database_url(settings: Settings) -> str:
    """The URL as psql accepts it; starts the embedded server where none is named."""
    return settings.database_url or embedded_server.start(settings.home)


def make_engine(settings: Settings) -> Engine:
    """A pooled engine; connections are tested before use, so a restarted server is no error."""
    engine = sqlalchemy.create_engine(
        _driver_url(database_url(settings)),
        pool_pre_ping=True,
        pool_size=10,
        max_overflow=10,
        connect_args={
            "connect_timeout": 10,
            "application_name": "lookalike",
            "options": (
                f"-c statement_timeout={int(settings.statement_timeout_s * 1000)}"
                # A plan made for no build in particular reads the whole table for the delta.
                " -c plan_cache_mode=force_custom_plan"
                # Rows of products and pictures are looked up one by one and mostly in memory.
                " -c random_page_cost=1.1"
            ),
        },
    )
    event.listen(engine, "handle_error", translate)
    event.listen(engine, "checkin", _forget_mode)
    return engine


def make_quick_engine(settings: Settings) -> Engine:
    """A pool for statements that are one transaction each and planned once a connection.

    Its plans are made for no values in particular, and never read a whole table. Connections are
    not tested before use: whoever uses one asks elsewhere when it fails.
    """
    engine = sqlalchemy.create_engine(
        _driver_url(database_url(settings)),
        pool_size=10,
        max_overflow=10,
        pool_timeout=1,
        pool_reset_on_return=None,
        connect_args={
            "autocommit": True,
            "connect_timeout": 10,
            "application_name": "lookalike",
            "options": (
                f"-c statement_timeout={int(settings.statement_timeout_s * 1000)}"
                " -c plan_cache_mode=force_generic_plan -c jit=off -c enable_seqscan=off"
                " -c enable_hashjoin=off -c enable_mergejoin=off"
            ),
        },
    )
    event.listen(engine, "connect", _prepare_quick)
    return engine


def _prepare_quick(connection: psycopg.Connection, _record: object) -> None:
    register_vector(connection)
    connection.prepared_max = PREPARED


def check_server(connection: Connection) -> None:
    """Raise DatabaseUnsuitable unless this server offers pgvector 0.8.4 or newer."""
    row = connection.execute(
        text(
            "SELECT coalesce(installed_version, default_version)"
            " FROM pg_available_extensions WHERE name = 'vector'"
        )
    ).scalar()
    if row is None:
        raise DatabaseUnsuitable(
            "This PostgreSQL server has no pgvector. Install pgvector 0.8.4 or newer on it "
            "(for Debian: the package postgresql-NN-pgvector), then run the command again."
        )
    if not _may_have_extension(connection):
        raise DatabaseUnsuitable(
            "This database has no extension vector yet, and this user may not create it. Let a "
            "superuser run `CREATE EXTENSION vector` in this database once."
        )
    if tuple(int(part) for part in re.findall(r"\d+", row)[:3]) < PGVECTOR_MINIMUM:
        raise DatabaseUnsuitable(
            f"This server has pgvector {row}; 0.8.4 or newer is needed. Upgrade the package, "
            "then run `ALTER EXTENSION vector UPDATE` in this database."
        )


def _may_have_extension(connection: Connection) -> bool:
    """Whether the extension is there or this user may create it (pgvector is a trusted one on
    some hosts, where the owner of a database may)."""
    return bool(
        connection.execute(
            text(
                """SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'vector')
                    OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
                    OR EXISTS (SELECT FROM pg_available_extension_versions
                        WHERE name = 'vector' AND trusted
                            AND has_database_privilege(current_database(), 'CREATE'))"""
            )
        ).scalar()
    )


def schema_revision(connection: Connection) -> str | None:
    """The migration this database is at; None before the first."""
    if connection.execute(text("SELECT to_regclass('alembic_version')")).scalar() is None:
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def check_schema(connection: Connection) -> None:
    """Raise SchemaMismatch unless the database is at the migration this code is written for."""
    found = schema_revision(connection)
    if found is None:
        raise SchemaMismatch("This database is empty. Run `lookalike init` first.")
    if found < SCHEMA_REVISION:
        raise SchemaMismatch(
            f"The database is at migration {found}, this version needs {SCHEMA_REVISION}. "
            "Run `lookalike migrate`."
        )
    if found > SCHEMA_REVISION:
        raise SchemaMismatch(
            f"The database is at migration {found}, newer than the {SCHEMA_REVISION} this version "
            "knows. Update Lookalike."
        )


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection whose statements all see the database as the first of them did, read-only."""
    try:
        opened = engine.connect()
    except PoolTimeout as exc:
        raise DatabaseUnavailable(
            "All connections of this process to PostgreSQL are busy. Try again in a moment."
        ) from exc
    with opened.execution_options(
        isolation_level="REPEATABLE READ", postgresql_readonly=True
    ) as connection:
        yield connection


def _driver_url(url: str) -> sqlalchemy.URL:
    """The same URL for SQLAlchemy with psycopg, whatever driver it names or leaves out.

    No part of it is repeated in an error: where it was cut wrongly, any part may be the password.
    """
    try:
        parsed = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError) as exc:
        raise _no_address("it cannot be read") from exc
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise _no_address("it does not begin with postgresql://")
    if "@" in (parsed.host or ""):
        raise _no_address("it has more than one @; one in a password is written %40")
    password = parsed.query.get("password")
    if isinstance(password, str):  # where it would be shown with the URL
        parsed = parsed.set(password=password).difference_update_query(["password"])
    return parsed.set(drivername="postgresql+psycopg")


def _no_address(reason: str) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"LOOKALIKE_DATABASE_URL is not the address of a PostgreSQL database: {reason}. It looks "
        "like postgresql://user:password@host:5432/database, with %40 for @ and %2F for / in the "
        "password."
    )


def _forget_mode(connection: psycopg.Connection | None, _record: object) -> None:
    """SQLAlchemy hands a read-only connection back as a READ WRITE one, which a replica refuses."""
    if connection is not None and not connection.closed:
        connection.read_only = None
