"""The engine: a pool of connections to the server the settings name, or to the embedded one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import sqlalchemy
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.types.json import set_json_loads
from sqlalchemy import Connection, Engine, PoolProxiedConnection, QueuePool, event, text
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.config import Settings
from app.db import dsn, halfvec_arrays
from app.db.driver_errors import translate
from app.db.embedded import server as embedded_server
from app.db.schema import SCHEMA_REVISION
from app.errors import DatabaseUnavailable, DatabaseUnsuitable, SchemaMismatch
from app.secret_files import read_secret

MAX_PREPARED_STATEMENTS = 20
"""Prepared statements of a fast connection; each takes about 0.7 MB of the server's memory."""

MIN_PGVECTOR = (0, 8, 4)
"""0.8.2 to 0.8.4 repaired builds and vacuum of HNSW."""

CONNECT_S = 10
"""Connection timeout in seconds, unless the URL or PGCONNECT_TIMEOUT sets one."""

GENERAL_CONNECTIONS = 10
"""Connections of the general pool, for everything except searches."""

EXTRA_SEARCH_CONNECTIONS = 2
"""Connections for background threads of searches: opening a new index, preloading a model."""

POOL_WAIT_S = 10
"""Seconds to wait for a free connection. An admitted search never waits."""

_PARAMETERS = "connection_parameters"

# Settings of a session. Custom plans: a generic plan reads the whole table for the delta of a
# build. Page cost: products and pictures are looked up row by row, mostly in memory.
GENERAL_SESSION = {"plan_cache_mode": "force_custom_plan", "random_page_cost": "1.1"}
FAST_SESSION = {
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}


class _Pool(QueuePool):
    """Raises DatabaseUnavailable when all connections are in use."""

    def connect(self) -> PoolProxiedConnection:
        try:
            return super().connect()
        except PoolTimeout as exc:
            raise DatabaseUnavailable(
                "All connections of this process to PostgreSQL are busy. Try again in a moment."
            ) from exc


def database_url(settings: Settings) -> str:
    """The URL as psql accepts it, with the password of the settings' file; starts the embedded
    server if the settings name no server."""
    if not settings.database_url:
        return embedded_server.start(settings.home)
    if settings.database_password_file is None:
        return settings.database_url
    password = read_secret(settings.database_password_file)
    return dsn.with_password(settings.database_url, password)


def make_engine(settings: Settings) -> Engine:
    """A pool for everything except searches.

    Connections are tested before use, so that a restart of the server causes no error.
    """
    return _tested(settings, GENERAL_CONNECTIONS)


def make_search_engine(settings: Settings) -> Engine:
    """A pool like that of `make_engine`, with one connection per concurrent search."""
    return _tested(settings, settings.places + EXTRA_SEARCH_CONNECTIONS)


def _tested(settings: Settings, size: int) -> Engine:
    engine = _engine(settings, GENERAL_SESSION, size, pool_pre_ping=True)
    event.listen(engine, "handle_error", translate)
    event.listen(engine, "checkin", _forget_mode)
    return engine


def make_fast_engine(settings: Settings, size: int | None = None) -> Engine:
    """A pool for statements that are one transaction each and planned once per connection, with
    one connection per concurrent search, or `size`.

    Plans are generic and never scan a whole table. Connections are not tested before use: the
    caller falls back to another pool when one fails.
    """
    engine = _engine(
        settings, FAST_SESSION, size or settings.places, autocommit=True, pool_reset_on_return=None
    )
    event.listen(engine, "connect", _prepare_fast)
    return engine


def _load_empty_json_fast(connection: psycopg.Connection, _record: object) -> None:
    set_json_loads(_load_json, connection)


def _prepare_nothing_through_a_pooler(connection: psycopg.Connection, _record: object) -> None:
    """A pooler in transaction mode gives each transaction any of its connections, where another
    client may have prepared another statement under the same name. It shows by its own process id
    in place of the server's."""
    try:
        autocommit, connection.autocommit = connection.autocommit, True
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        connection.autocommit = autocommit
    except BaseException:
        connection.close()  # the pool does not know it yet
        raise
    if row is None or row[0] != connection.info.backend_pid:
        connection.prepare_threshold = None


def _prepare_fast(connection: psycopg.Connection, _record: object) -> None:
    register_vector(connection)
    halfvec_arrays.register(connection)
    connection.prepared_max = MAX_PREPARED_STATEMENTS


def _load_json(data: bytes | str) -> Any:
    """A JSON value; most products have no attributes, and parsing `{}` as well takes longer than
    reading all other columns."""
    return {} if data == b"{}" else json.loads(data)


def connection_parameters(engine: Engine) -> dict[str, str]:
    """Connection options of an engine, secrets included, for connections outside its pool."""
    return dict(engine.get_execution_options()[_PARAMETERS])


def _engine(
    settings: Settings, session: dict[str, str], size: int, *, autocommit: bool = False, **pool: Any
) -> Engine:
    """SQLAlchemy's URL, which it may show, has no secrets; psycopg gets them as arguments."""
    options = dsn.parse(database_url(settings))
    timeout_ms = str(int(settings.statement_timeout_s * 1000))
    connect = _with_defaults(options, {"statement_timeout": timeout_ms} | session)
    engine = sqlalchemy.create_engine(
        dsn.public_url(options),
        poolclass=_Pool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=POOL_WAIT_S,
        pool_use_lifo=True,  # surplus connections stay idle
        connect_args=connect | {"autocommit": autocommit},
        execution_options={_PARAMETERS: options},
        **pool,
    )
    event.listen(engine, "connect", _load_empty_json_fast)
    event.listen(engine, "connect", _prepare_nothing_through_a_pooler)
    return engine


def _with_defaults(options: dict[str, str], session: dict[str, str]) -> dict[str, str]:
    """Add our defaults to the options of a URL. Of two `-c` for one name the last one counts."""
    ours = " ".join(f"-c {name}={value}" for name, value in session.items())
    theirs = options.get("options", os.environ.get("PGOPTIONS", ""))
    defaults = {"fallback_application_name": "lookalike"}
    if "PGCONNECT_TIMEOUT" not in os.environ:
        defaults["connect_timeout"] = str(CONNECT_S)
    return defaults | options | {"options": f"{ours} {theirs}".strip()}


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
    if tuple(int(part) for part in re.findall(r"\d+", row)[:3]) < MIN_PGVECTOR:
        raise DatabaseUnsuitable(
            f"This server has pgvector {row}; 0.8.4 or newer is needed. Upgrade the package, "
            "then run `ALTER EXTENSION vector UPDATE` in this database."
        )


def _may_have_extension(connection: Connection) -> bool:
    """Whether the extension is installed or this user may create it; on some hosts pgvector is a
    trusted extension, which the owner of a database may create."""
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
    """The migration that this database has reached; None before the first."""
    if connection.execute(text("SELECT to_regclass('alembic_version')")).scalar() is None:
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def check_schema(connection: Connection) -> None:
    """Raise SchemaMismatch unless the database has the migration that this code needs, or a newer
    one that is compatible with it."""
    revision = schema_revision(connection)
    if revision is None:
        raise SchemaMismatch("This database is empty. Run `lookalike init` first.")
    if revision < SCHEMA_REVISION:
        raise SchemaMismatch(
            f"The database is at migration {revision}, this version needs {SCHEMA_REVISION}. "
            "Run `lookalike migrate`."
        )
    if revision > SCHEMA_REVISION and _serves_code_since(connection) > SCHEMA_REVISION:
        raise SchemaMismatch(
            f"The database is at migration {revision}, newer than the {SCHEMA_REVISION} this "
            "version knows, and serves newer code only. Update Lookalike."
        )


def _serves_code_since(connection: Connection) -> str:
    """The migration of the oldest code that is compatible with this database."""
    return str(connection.execute(text("SELECT code_since FROM schema_serves")).scalar_one())


@contextmanager
def snapshot(engine: Engine, shared: str | None = None) -> Iterator[Connection]:
    """A read-only connection whose statements all see the snapshot of the first statement, or the
    exported snapshot `shared` of another transaction that has not ended."""
    with engine.connect().execution_options(
        isolation_level="REPEATABLE READ", postgresql_readonly=True
    ) as connection:
        if shared is not None:
            # It accepts no parameters and must be the first statement.
            connection.exec_driver_sql(
                sql.SQL("SET TRANSACTION SNAPSHOT {}").format(shared).as_string()
            )
        yield connection


def _forget_mode(connection: psycopg.Connection | None, _record: object) -> None:
    """SQLAlchemy resets a read-only connection to READ WRITE, which a replica refuses."""
    if connection is not None and not connection.closed:
        connection.read_only = None
