"""The engine: what a server lacks or refuses is a sentence that helps and hides the password."""

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
from app.db.embedded import server as embedded_server
from app.db.engine import check_schema, check_server, make_engine, schema_revision, snapshot
from app.db.schema import SCHEMA_REVISION
from app.errors import DatabaseUnavailable, DatabaseUnsuitable, LookalikeError, SchemaMismatch
from app.operations.migrate import migrate
from support.paths import REPO
from support.servers import PASSWORD, USER, TcpServer, password_server


def program(name: str) -> str:
    """The path of a program of this Python's environment."""
    return str(Path(sys.executable).with_name(name))


@pytest.fixture(scope="module")
def tcp_server() -> Iterator[TcpServer]:
    with password_server() as server:
        yield server


@pytest.fixture
def engine_of() -> Iterator[Callable[..., Engine]]:
    """Makes engines of a URL and closes them at the end."""
    made: list[Engine] = []

    def make(url: str, **settings: Any) -> Engine:
        made.append(make_engine(Settings(database_url=url, **settings)))
        return made[-1]

    yield make
    for engine in made:
        engine.dispose()


@pytest.fixture
def engine(engine_of: Callable[..., Engine], empty_url: str) -> Engine:
    """An engine of an empty database."""
    return engine_of(empty_url)


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def ask(engine: Engine, question: str = "SELECT 1") -> Any:
    with engine.connect() as connection:
        return connection.execute(text(question)).scalar()


def refusal(url: str) -> str:
    """What an attempt to use a database of this address says."""
    with pytest.raises(LookalikeError) as refused:
        engine = make_engine(Settings(database_url=url))
        try:
            ask(engine)
        finally:
            engine.dispose()
    return str(refused.value)


# What the server must offer


@pytest.fixture
def offer(empty_url: str) -> Iterator[Callable[[str | None], None]]:
    """Lets this database's server offer another version of pgvector, or none at all."""
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


def test_a_server_without_pgvector_is_told_to_get_it(
    engine: Engine, offer: Callable[[str | None], None]
) -> None:
    offer(None)
    with pytest.raises(DatabaseUnsuitable, match=r"no pgvector\. Install pgvector 0\.8\.4"):
        migrate(engine)


@pytest.mark.parametrize("version", ["0.8.3", "0.7.4", "0.4"])
def test_a_server_with_an_old_pgvector_is_told_to_upgrade_it(
    engine: Engine, offer: Callable[[str | None], None], version: str
) -> None:
    offer(version)
    with pytest.raises(DatabaseUnsuitable, match=f"pgvector {version}; 0.8.4 or newer is needed"):
        migrate(engine)


@pytest.mark.parametrize("version", ["0.8.4", "0.8.10", "0.10.0", "1.0"])
def test_a_server_with_a_newer_pgvector_will_do(
    engine: Engine, offer: Callable[[str | None], None], version: str
) -> None:
    offer(version)
    with engine.connect() as connection:
        check_server(connection)


def test_a_database_that_kept_an_old_pgvector_is_told_to_update_it(
    engine: Engine, empty_url: str
) -> None:
    older = "UPDATE pg_extension SET extversion = '0.8.0' WHERE extname = 'vector'"
    execute(empty_url, "CREATE EXTENSION vector", older)
    with pytest.raises(DatabaseUnsuitable, match="ALTER EXTENSION vector UPDATE"):
        migrate(engine)


# What can be wrong with the address


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
def test_a_wrong_address_is_refused_by_the_name_of_its_setting_and_without_the_password(
    address: str,
) -> None:
    said = refusal(address)
    assert ("LOOKALIKE_DATABASE_URL" in said, "ter2" in said) == (True, False)


def test_a_wrong_password_is_named_as_such_and_not_shown(tcp_server: TcpServer) -> None:
    said = refusal(tcp_server.url(password="wr0ng/secret"))
    assert ("password authentication failed" in said, "secret" in said) == (True, False)


def test_a_database_that_is_not_there_is_named(tcp_server: TcpServer) -> None:
    assert 'database "nowhere" does not exist' in refusal(tcp_server.url("nowhere"))


@pytest.mark.parametrize("scheme", ["postgres", "postgresql+psycopg2", "postgresql+asyncpg"])
def test_an_address_may_name_any_driver_of_postgresql(
    engine_of: Callable[..., Engine], tcp_server: TcpServer, scheme: str
) -> None:
    address = tcp_server.url().replace("postgresql", scheme, 1)
    assert ask(engine_of(address), "SELECT current_user") == USER


def test_a_password_may_stand_among_the_options(
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
    shown = subprocess.run(
        [program("lookalike"), "status"],
        env=os.environ | {"LOOKALIKE_DATABASE_URL": address, "LOOKALIKE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    said = shown.stdout + shown.stderr
    assert (str(tcp_server.port) in said, "hunter" in said) == (True, False)


def test_alembic_upgrades_a_server_that_asks_for_a_password(
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


# What can happen to a connection


@pytest.fixture(scope="module")
def own_home() -> Iterator[Path]:
    """The home of a server that these tests may stop."""
    home = Path(tempfile.mkdtemp(prefix="lookalike-own-"))
    yield home
    embedded_server.stop(home)
    shutil.rmtree(home)


@pytest.fixture
def pooled(engine_of: Callable[..., Engine], own_home: Path) -> Engine:
    """An engine with a connection to that server in its pool."""
    engine = engine_of(embedded_server.start(own_home, {"fsync": "off"}))
    ask(engine)
    return engine


def test_a_pooled_connection_survives_a_restart_of_the_server(
    pooled: Engine, own_home: Path
) -> None:
    embedded_server.stop(own_home)
    embedded_server.start(own_home)
    assert ask(pooled) == 1


def test_while_the_server_is_stopped_a_call_says_so(pooled: Engine, own_home: Path) -> None:
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


def test_a_connection_that_is_cut_off_in_mid_transaction_is_an_unreachable_database(
    engine: Engine, empty_url: str
) -> None:
    with (
        pytest.raises(DatabaseUnavailable, match="terminating connection"),
        engine.connect() as connection,
    ):
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        execute(empty_url, f"SELECT pg_terminate_backend({pid}, 5000)")
        connection.execute(text("SELECT 1"))


def test_a_statement_that_takes_too_long_is_stopped_with_a_sentence(
    engine_of: Callable[..., Engine], empty_url: str
) -> None:
    with pytest.raises(DatabaseUnavailable, match="took too long"):
        ask(engine_of(empty_url, statement_timeout_s=0.05), "SELECT pg_sleep(5)")


def test_a_missing_table_asks_for_the_migrations(engine: Engine) -> None:
    with pytest.raises(SchemaMismatch, match="lookalike migrate"):
        ask(engine, "SELECT count(*) FROM product")


def test_other_errors_of_a_statement_stay_what_they_are(engine: Engine) -> None:
    with pytest.raises(DBAPIError, match="division by zero"):
        ask(engine, "SELECT 1 / 0")


# What the database must hold


def test_an_empty_database_asks_for_init(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(SchemaMismatch, match="lookalike init"):
        check_schema(connection)


@pytest.mark.parametrize(
    ("revision", "advice"), [("0000", "lookalike migrate"), ("9999", "Update")]
)
def test_a_database_of_another_version_says_which_side_to_update(
    engine_of: Callable[..., Engine], database_url: str, revision: str, advice: str
) -> None:
    execute(database_url, f"UPDATE alembic_version SET version_num = '{revision}'")
    execute(database_url, f"UPDATE schema_serves SET code_since = '{revision}'")
    with (
        engine_of(database_url).connect() as connection,
        pytest.raises(SchemaMismatch, match=f"{revision}.*{advice}"),
    ):
        check_schema(connection)


def test_a_snapshot_does_not_see_what_is_committed_after_its_first_statement(
    engine: Engine, empty_url: str
) -> None:
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
