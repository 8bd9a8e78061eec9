"""The engine: a pool of connections to the server the settings name, or to the embedded one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import sqlalchemy
from pgvector.psycopg import register_vector
from psycopg import sql
from sqlalchemy import Connection, Engine, PoolProxiedConnection, QueuePool, event, text
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.config import Settings
from app.db import dsn
from app.db.driver_errors import translate
from app.db.embedded import server as embedded_server
from app.db.schema import SCHEMA_REVISION
from app.errors import DatabaseUnavailable, DatabaseUnsuitable, SchemaMismatch

PREPARED = 20
"""Statements a quick connection keeps planned, each in about 0.7 MB of the server's memory."""

PGVECTOR_MINIMUM = (0, 8, 4)
"""0.8.2 to 0.8.4 repaired builds and vacuum of HNSW."""

CONNECT_S = 10
"""Seconds to wait for a server, unless the address or PGCONNECT_TIMEOUT says otherwise."""

OTHERS = 10
"""Connections for whatever is no search."""

BESIDE = 2
"""Connections for what searches leave to threads: a new index, a model that may become active."""

POOL_WAIT_S = 10
"""Seconds to wait for a connection; a search that was admitted finds one free."""

_PARAMETERS = "address"

# A plan made for no build in particular reads the whole table for the delta. Rows of products and
# pictures are looked up one by one and mostly in memory.
ORDINARY = {"plan_cache_mode": "force_custom_plan", "random_page_cost": "1.1"}
QUICK = {
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}


class _Pool(QueuePool):
    """Says in a sentence that all connections are in use."""

    def connect(self) -> PoolProxiedConnection:
        try:
            return super().connect()
        except PoolTimeout as exc:
            raise DatabaseUnavailable(
                "All connections of this process to PostgreSQL are busy. Try again in a moment."
            ) from exc


def database_url(settings: Settings) -> str:
    """The URL as psql accepts it; starts the embedded server where none is named."""
    return settings.database_url or embedded_server.start(settings.home)


def make_engine(settings: Settings) -> Engine:
    """A pool for whatever is no search.

    Connections are tested before use, so a restarted server is no error.
    """
    return _tested(settings, OTHERS)


def make_search_engine(settings: Settings) -> Engine:
    """A pool as `make_engine`, with a connection for every search that may run at a time."""
    return _tested(settings, settings.places + BESIDE)


def _tested(settings: Settings, most: int) -> Engine:
    engine = _engine(settings, ORDINARY, most, pool_pre_ping=True)
    event.listen(engine, "handle_error", translate)
    event.listen(engine, "checkin", _forget_mode)
    return engine


def make_quick_engine(settings: Settings) -> Engine:
    """A pool for statements that are one transaction each and planned once a connection.

    Its plans are made for no values in particular, and never read a whole table. Connections are
    not tested before use: whoever uses one asks elsewhere when it fails.
    """
    engine = _engine(settings, QUICK, settings.places, autocommit=True, pool_reset_on_return=None)
    event.listen(engine, "connect", _prepare_quick)
    return engine


def _prepare_quick(connection: psycopg.Connection, _record: object) -> None:
    register_vector(connection)
    connection.prepared_max = PREPARED


def parameters(engine: Engine) -> dict[str, str]:
    """What the address of an engine says, secrets included, for whoever connects beside it."""
    return dict(engine.get_execution_options()[_PARAMETERS])


def _engine(
    settings: Settings, session: dict[str, str], most: int, *, autocommit: bool = False, **pool: Any
) -> Engine:
    """The URL that SQLAlchemy holds, and shows, has no secrets: psycopg gets them from here."""
    found = dsn.parameters(database_url(settings))
    timeout_ms = str(int(settings.statement_timeout_s * 1000))
    connect = _completed(found, {"statement_timeout": timeout_ms} | session)
    return sqlalchemy.create_engine(
        dsn.shown(found),
        poolclass=_Pool,
        pool_size=most,
        max_overflow=0,
        pool_timeout=POOL_WAIT_S,
        pool_use_lifo=True,  # those that are not needed stay idle
        connect_args=connect | {"autocommit": autocommit},
        execution_options={_PARAMETERS: found},
        **pool,
    )


def _completed(found: dict[str, str], session: dict[str, str]) -> dict[str, str]:
    """What an address says, and what it leaves open; of two `-c` for one name the last counts."""
    ours = " ".join(f"-c {name}={value}" for name, value in session.items())
    theirs = found.get("options", os.environ.get("PGOPTIONS", ""))
    open_ = {"fallback_application_name": "lookalike"}
    if "PGCONNECT_TIMEOUT" not in os.environ:
        open_["connect_timeout"] = str(CONNECT_S)
    return open_ | found | {"options": f"{ours} {theirs}".strip()}


def driver_connection(connection: Connection) -> psycopg.Connection[Any]:
    """The psycopg connection under one of SQLAlchemy, for COPY, pipelines and notices."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver


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
    """Raise SchemaMismatch unless the database is at the migration this code is written for, or at
    a newer one that still serves it."""
    found = schema_revision(connection)
    if found is None:
        raise SchemaMismatch("This database is empty. Run `lookalike init` first.")
    if found < SCHEMA_REVISION:
        raise SchemaMismatch(
            f"The database is at migration {found}, this version needs {SCHEMA_REVISION}. "
            "Run `lookalike migrate`."
        )
    if found > SCHEMA_REVISION and _serves_code_since(connection) > SCHEMA_REVISION:
        raise SchemaMismatch(
            f"The database is at migration {found}, newer than the {SCHEMA_REVISION} this version "
            "knows, and serves newer code only. Update Lookalike."
        )


def _serves_code_since(connection: Connection) -> str:
    """The migration of the oldest code this database serves."""
    return str(connection.execute(text("SELECT code_since FROM schema_serves")).scalar_one())


@contextmanager
def snapshot(engine: Engine, shared: str | None = None) -> Iterator[Connection]:
    """A connection whose statements all see the database as the first of them did, read-only, or
    as another transaction does that exported its snapshot and has not ended (`shared`)."""
    with engine.connect().execution_options(
        isolation_level="REPEATABLE READ", postgresql_readonly=True
    ) as connection:
        if shared is not None:
            # It takes no parameters, and must be the first.
            connection.exec_driver_sql(
                sql.SQL("SET TRANSACTION SNAPSHOT {}").format(shared).as_string()
            )
        yield connection


def _forget_mode(connection: psycopg.Connection | None, _record: object) -> None:
    """SQLAlchemy hands a read-only connection back as a READ WRITE one, which a replica refuses."""
    if connection is not None and not connection.closed:
        connection.read_only = None
