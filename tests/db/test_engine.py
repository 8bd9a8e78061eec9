"""The engine: errors of the server become messages with advice and without the password."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from app.config import Settings
from app.db import engine as engine_module
from app.db.embedded import server as embedded_server
from app.db.engine import check_schema, check_server, make_engine, schema_revision, snapshot
from app.db.schema import SCHEMA_REVISION
from app.errors import DatabaseUnavailable, DatabaseUnsuitable, LookalikeError, SchemaMismatch
from app.operations.migrate import migrate
from support.paths import REPO
from support.servers import PASSWORD, USER, TcpServer, password_server


def program(name: str) -> str:
    """The path of a program in this Python's environment."""
    return str(Path(sys.executable).with_name(name))


@pytest.fixture(scope="module")
def tcp_server() -> Iterator[TcpServer]:
    with password_server() as server:
        yield server


@pytest.fixture
def engine_of() -> Iterator[Callable[..., Engine]]:
    """Creates engines for URLs and disposes of them at the end."""
    created: list[Engine] = []

    def make(url: str, **settings: Any) -> Engine:
        created.append(make_engine(Settings(database_url=url, **settings)))
        return created[-1]

    yield make
    for engine in created:
        engine.dispose()


@pytest.fixture
def engine(engine_of: Callable[..., Engine], empty_url: str) -> Engine:
    """An engine for an empty database."""
    return engine_of(empty_url)


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def ask(engine: Engine, question: str = "SELECT 1") -> Any:
    with engine.connect() as connection:
        return connection.execute(text(question)).scalar()


def refusal(url: str) -> str:
    """The error message for an attempt to use the database of this URL."""
    with pytest.raises(LookalikeError) as refused:
        engine = make_engine(Settings(database_url=url))
        try:
            ask(engine)
        finally:
            engine.dispose()
    return str(refused.value)


# What the server must provide


@pytest.fixture
def offered_pgvector(empty_url: str) -> Iterator[Callable[[str | None], None]]:
    """Makes the server offered_pgvector another version of pgvector, or none."""
    share = Path(tempfile.mkdtemp(prefix="lookalike-share-"))
    share.chmod(0o755)
    (share / "extension").mkdir()

    def make(version: str | None) -> None:
        if version:
            control = f"default_version = '{version}'\nrelocatable = true\n"
            (share / "extension" / "vector.control").write_text(control)
        name = psycopg.conninfo.conninfo_to_dict(empty_url)["dbname"]
        execute(empty_url, f"ALTER DATABASE {name} SET extension_control_path = '{share}'")

    yield make
    shutil.rmtree(share)


def test_a_missing_pgvector_is_an_error_that_advises_to_install_it(
    engine: Engine, offered_pgvector: Callable[[str | None], None]
) -> None:
    offered_pgvector(None)
    with pytest.raises(DatabaseUnsuitable, match=r"no pgvector\. Install pgvector 0\.8\.4"):
        migrate(engine)


@pytest.mark.parametrize("version", ["0.8.3", "0.7.4", "0.4"])
def test_an_old_pgvector_is_an_error_that_advises_to_upgrade_it(
    engine: Engine, offered_pgvector: Callable[[str | None], None], version: str
) -> None:
    offered_pgvector(version)
    with pytest.raises(DatabaseUnsuitable, match=f"pgvector {version}; 0.8.4 or newer is needed"):
        migrate(engine)


@pytest.mark.parametrize("version", ["0.8.4", "0.8.10", "0.10.0", "1.0"])
def test_a_newer_pgvector_is_accepted(
    engine: Engine, offered_pgvector: Callable[[str | None], None], version: str
) -> None:
    offered_pgvector(version)
    with engine.connect() as connection:
        check_server(connection)


def test_an_old_extension_in_the_database_is_an_error_that_advises_to_update_it(
    engine: Engine, empty_url: str
) -> None:
    older = "UPDATE pg_extension SET extversion = '0.8.0' WHERE extname = 'vector'"
    execute(empty_url, "CREATE EXTENSION vector", older)
    with pytest.raises(DatabaseUnsuitable, match="ALTER EXTENSION vector UPDATE"):
        migrate(engine)


# Invalid URLs


@pytest.mark.parametrize(
    "address",
    [
        "nonsense",
        "host=localhost user=me password=hunter2",
        "mysql://me:hunter2@localhost/shop",
        "postgresql://me:hunter2@localhost:port/shop",
        "postgresql://me:hunter2",
        "postgresql://me:hun@ter2@localhost/shop",
        "postgresql://me:hunter2@localhost/shop?colour=red",
        "postgresql://me:hunter2@localhost/shop?sslmode=perhaps",
        "postgresql://me:hunter2@localhost:99999/shop",
        "postgresql://me:hunter2@no-such-host.invalid/shop",
        "postgresql://me:hunter2@127.0.0.1:1/shop",
        "postgresql://me@127.0.0.1:1/shop?password=hunter2",
    ],
)
def test_the_error_for_a_wrong_url_names_the_setting_and_hides_the_password(
    address: str,
) -> None:
    message = refusal(address)
    assert ("LOOKALIKE_DATABASE_URL" in message, "ter2" in message) == (True, False)


def test_a_wrong_password_is_reported_and_not_shown(tcp_server: TcpServer) -> None:
    message = refusal(tcp_server.url(password="wr0ng/secret"))
    assert ("password authentication failed" in message, "secret" in message) == (True, False)


def test_the_error_for_a_missing_database_names_it(tcp_server: TcpServer) -> None:
    assert 'database "nowhere" does not exist' in refusal(tcp_server.url("nowhere"))


@pytest.mark.parametrize("scheme", ["postgres", "postgresql+psycopg2", "postgresql+asyncpg"])
def test_a_url_may_name_any_postgresql_driver(
    engine_of: Callable[..., Engine], tcp_server: TcpServer, scheme: str
) -> None:
    address = tcp_server.url().replace("postgresql", scheme, 1)
    assert ask(engine_of(address), "SELECT current_user") == USER


def test_a_password_may_be_in_the_query_options_of_the_url(
    engine_of: Callable[..., Engine], tcp_server: TcpServer
) -> None:
    user, secret = quote(USER), quote(PASSWORD, safe="")
    address = f"postgresql://127.0.0.1:{tcp_server.port}/postgres?user={user}&password={secret}"
    assert ask(engine_of(address), "SELECT current_user") == USER


@pytest.mark.parametrize("right", [True, False])
def test_status_never_shows_the_password(
    tcp_server: TcpServer, tmp_path: Path, right: bool
) -> None:
    user, secret = quote(USER), quote(PASSWORD if right else "hunter3", safe="")
    address = f"postgresql://127.0.0.1:{tcp_server.port}/postgres?user={user}&password={secret}"
    process = subprocess.run(
        [program("lookalike"), "status"],
        env=os.environ | {"LOOKALIKE_DATABASE_URL": address, "LOOKALIKE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    message = process.stdout + process.stderr
    assert (str(tcp_server.port) in message, "hunter" in message) == (True, False)


def test_alembic_upgrades_a_server_that_requires_a_password(
    engine_of: Callable[..., Engine], tcp_server: TcpServer
) -> None:
    execute(tcp_server.url(), "CREATE DATABASE shop")
    subprocess.run(
        [program("alembic"), "upgrade", "head"],
        cwd=REPO,
        env=os.environ | {"LOOKALIKE_DATABASE_URL": tcp_server.url("shop")},
        check=True,
        capture_output=True,
    )
    with engine_of(tcp_server.url("shop")).connect() as connection:
        assert schema_revision(connection) == SCHEMA_REVISION


# Lost connections and failed statements


@pytest.fixture(scope="module")
def own_home() -> Iterator[Path]:
    """The home of a server that these tests may stop."""
    home = Path(tempfile.mkdtemp(prefix="lookalike-own-"))
    yield home
    embedded_server.stop(home)
    shutil.rmtree(home)


@pytest.fixture
def pooled(engine_of: Callable[..., Engine], own_home: Path) -> Engine:
    """An engine for that server with a connection in its pool."""
    engine = engine_of(embedded_server.start(own_home, {"fsync": "off"}))
    ask(engine)
    return engine


def test_a_pooled_connection_survives_a_restart_of_the_server(
    pooled: Engine, own_home: Path
) -> None:
    embedded_server.stop(own_home)
    embedded_server.start(own_home)
    assert ask(pooled) == 1


def test_a_call_to_a_stopped_server_is_an_unreachable_database(
    pooled: Engine, own_home: Path
) -> None:
    embedded_server.stop(own_home)
    with pytest.raises(DatabaseUnavailable, match="cannot be reached"):
        ask(pooled)


def test_after_a_call_to_a_stopped_server_the_next_one_works(
    pooled: Engine, own_home: Path
) -> None:
    embedded_server.stop(own_home)
    with pytest.raises(DatabaseUnavailable):
        ask(pooled)
    embedded_server.start(own_home)
    assert ask(pooled) == 1


def test_a_connection_lost_during_a_transaction_is_an_unreachable_database(
    engine: Engine, empty_url: str
) -> None:
    with (
        pytest.raises(DatabaseUnavailable, match="terminating connection"),
        engine.connect() as connection,
    ):
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        execute(empty_url, f"SELECT pg_terminate_backend({pid}, 5000)")
        connection.execute(text("SELECT 1"))


def test_a_statement_that_exceeds_its_timeout_is_an_error_with_advice(
    engine_of: Callable[..., Engine], empty_url: str
) -> None:
    with pytest.raises(DatabaseUnavailable, match="took too long"):
        ask(engine_of(empty_url, statement_timeout_s=0.05), "SELECT pg_sleep(5)")


def test_the_error_for_a_missing_table_advises_to_migrate(engine: Engine) -> None:
    with pytest.raises(SchemaMismatch, match="lookalike migrate"):
        ask(engine, "SELECT count(*) FROM product")


def test_other_errors_of_a_statement_are_not_translated(engine: Engine) -> None:
    with pytest.raises(DBAPIError, match="division by zero"):
        ask(engine, "SELECT 1 / 0")


# The revision of the database


def test_the_error_for_an_empty_database_advises_to_run_init(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(SchemaMismatch, match="lookalike init"):
        check_schema(connection)


@pytest.mark.parametrize(
    ("revision", "advice"), [("0000", "lookalike migrate"), ("9999", "Update")]
)
def test_the_error_for_another_revision_names_the_side_to_update(
    engine_of: Callable[..., Engine], database_url: str, revision: str, advice: str
) -> None:
    execute(database_url, f"UPDATE alembic_version SET version_num = '{revision}'")
    execute(database_url, f"UPDATE schema_serves SET code_since = '{revision}'")
    with (
        engine_of(database_url).connect() as connection,
        pytest.raises(SchemaMismatch, match=f"{revision}.*{advice}"),
    ):
        check_schema(connection)


def test_a_snapshot_does_not_see_later_commits(engine: Engine, empty_url: str) -> None:
    execute(empty_url, "CREATE TABLE seen (n int)")
    with snapshot(engine) as connection:
        connection.execute(text("SELECT 1"))
        execute(empty_url, "INSERT INTO seen VALUES (1)")
        assert connection.execute(text("SELECT count(*) FROM seen")).scalar() == 0


def test_a_snapshot_cannot_write(engine: Engine) -> None:
    with (
        pytest.raises(DatabaseUnsuitable, match="read-only"),
        snapshot(engine) as connection,
    ):
        connection.execute(text("CREATE TABLE mine (n int)"))


def test_a_connection_that_cannot_be_prepared_for_use_is_closed(database_url: str) -> None:
    """The pool does not know it yet, and nobody else would close it."""
    connection = psycopg.connect(database_url)
    connection.execute("SELECT 1")  # in a transaction the mode cannot be changed
    with pytest.raises(psycopg.ProgrammingError):
        engine_module._prepare_nothing_through_a_pooler(connection, None)
    assert connection.closed and not connection.broken
