"""The watchdog ends sessions of analysts that block other sessions, and no other sessions."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.db.locks import LockKey
from app.db.queries.analyst_sessions import ROLE
from app.operations.analyst_watchdog import AnalystWatchdog, end_overdue
from app.operations.migrate import migrate
from support.analysts import catalogue, login
from support.colours import choose_colours
from support.servers import own_server, start, wait_until

LONG_S = 60.0


@pytest.fixture(scope="module")
def shop(server_home: Path, template: str) -> Iterator[App]:
    with catalogue(server_home, template) as app:
        yield app


@contextmanager
def connected(shop: App) -> Iterator[psycopg.Connection]:
    # `with connection` would commit, which fails on a session that was ended.
    with login(shop) as url, closing(psycopg.connect(url, autocommit=True)) as connection:
        yield connection


@pytest.fixture
def analyst(shop: App) -> Iterator[psycopg.Connection]:
    with connected(shop) as connection:
        connection.execute("SET statement_timeout = 0")
        connection.execute("SET idle_in_transaction_session_timeout = 0")
        yield connection


def ended(shop: App, limit_s: float) -> dict[int, str]:
    with shop.engine.connect() as connection:
        return {session.pid: session.reason for session in end_overdue(connection, limit_s)}


@contextmanager
def statement_running(connection: psycopg.Connection, sql: str) -> Iterator[None]:
    """Runs a statement in a thread until the statement or its session ends."""

    def run() -> None:
        with suppress(psycopg.Error):
            connection.execute(sql)  # type: ignore[call-overload]

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(300)
        assert not thread.is_alive()


def server(shop: App) -> psycopg.Connection:
    return psycopg.connect(shop.settings.database_url or "", autocommit=True)


def state(shop: App, pid: int) -> Any:
    with server(shop) as connection:
        return connection.execute(
            "SELECT state FROM pg_stat_activity WHERE pid = %s", [pid]
        ).fetchone()


def test_the_session_of_a_harmless_analyst_is_not_ended(
    shop: App, analyst: psycopg.Connection
) -> None:
    with analyst.transaction():
        analyst.execute("SELECT count(*) FROM analytics.products")
        assert ended(shop, LONG_S) == {}
    time.sleep(0.2)
    assert ended(shop, 0.1) == {}  # idle for long, but not in a transaction
    analyst.execute("SELECT 1")


@pytest.mark.parametrize("shared", ["", "_shared", "_xact"])
def test_a_session_that_holds_an_advisory_lock_is_ended(
    shop: App, analyst: psycopg.Connection, shared: str
) -> None:
    pid = analyst.info.backend_pid
    analyst.execute("BEGIN")
    name = "pg_advisory_xact_lock" if shared == "_xact" else f"pg_advisory_lock{shared}"
    analyst.execute(f"SELECT {name}(%s)", [LockKey.INDEX_BUILD.value])
    assert ended(shop, LONG_S) == {pid: "it asked for an advisory lock"}
    wait_until(lambda: state(shop, pid) is None, "the session was not ended")
    assert shop.indexer.rebuild().state == "published"


def test_a_session_that_waits_for_an_advisory_lock_is_ended(
    shop: App, analyst: psycopg.Connection
) -> None:
    with server(shop) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [LockKey.INDEX_BUILD.value])
        with statement_running(analyst, f"SELECT pg_advisory_lock({LockKey.INDEX_BUILD.value})"):
            pid = analyst.info.backend_pid
            waits = "SELECT FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
            wait_until(lambda: holder.execute(waits).fetchall(), "the statement does not wait")
            assert ended(shop, LONG_S) == {pid: "it asked for an advisory lock"}


def test_a_statement_that_runs_too_long_is_ended(shop: App, analyst: psycopg.Connection) -> None:
    pid = analyst.info.backend_pid
    with statement_running(analyst, "SELECT pg_sleep(30)"):
        wait_until(lambda: state(shop, pid) == ("active",), "the statement does not run")
        assert ended(shop, LONG_S) == {}
        time.sleep(0.2)
        assert ended(shop, 0.2) == {pid: "its statement ran too long"}


def test_a_procedure_that_commits_repeatedly_is_ended(
    shop: App, analyst: psycopg.Connection
) -> None:
    pid = analyst.info.backend_pid
    with statement_running(
        analyst, "DO 'BEGIN LOOP PERFORM pg_sleep(0.02); COMMIT; END LOOP; END'"
    ):
        wait_until(lambda: state(shop, pid) == ("active",), "the statement does not run")
        time.sleep(0.3)
        assert ended(shop, 0.2) == {pid: "its statement ran too long"}


def test_a_transaction_that_stays_open_is_ended(shop: App, analyst: psycopg.Connection) -> None:
    analyst.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    analyst.execute("SELECT 1")
    time.sleep(0.3)
    analyst.execute("SELECT 1")  # idle for a moment only
    assert ended(shop, 0.2) == {analyst.info.backend_pid: "its transaction was open too long"}


def test_sessions_above_the_limit_of_the_role_are_ended_youngest_first(shop: App) -> None:
    """In PostgreSQL members of a role do not inherit its connection limit."""
    with login(shop) as url, ExitStack() as stack:
        sessions = [stack.enter_context(closing(psycopg.connect(url))) for _ in range(12)]
        assert set(ended(shop, LONG_S)) == {each.info.backend_pid for each in sessions[10:]}
        wait_until(
            lambda: state(shop, sessions[11].info.backend_pid) is None, "the session goes on"
        )
        assert ended(shop, LONG_S) == {}


def test_an_administrator_may_allow_an_analyst_more_sessions(shop: App) -> None:
    with login(shop) as url, ExitStack() as stack:
        sessions = [stack.enter_context(closing(psycopg.connect(url))) for _ in range(12)]
        with server(shop) as connection:
            connection.execute(f"ALTER ROLE {sessions[0].info.user} CONNECTION LIMIT 20")
        assert ended(shop, LONG_S) == {}


def test_a_prepared_transaction_of_an_analyst_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It holds its locks without a session that could be ended."""
    with own_server(max_prepared_transactions="2") as home:
        settings = Settings(home=tmp_path, database_url=start(home))
        with App(settings, choose=choose_colours) as app:
            migrate(app.engine)
            with login(app) as url:
                with psycopg.connect(url, autocommit=True) as analyst:
                    analyst.execute("BEGIN")
                    analyst.execute("SELECT pg_advisory_xact_lock(%s)", [LockKey.INDEX_BUILD.value])
                    analyst.execute("PREPARE TRANSACTION 'held'")
                with AnalystWatchdog(app.engine, LONG_S, every_s=0.05):
                    wait_until(lambda: caplog.records, "nothing was logged")
                    time.sleep(0.2)
                [record] = caplog.records
                assert "the analyst ada_" in record.getMessage() and "'held'" in record.getMessage()
                with server(app) as connection:
                    connection.execute("ROLLBACK PREPARED 'held'")


def test_a_user_who_may_set_the_role_without_inheriting_it_is_an_analyst(
    shop: App, analyst: psycopg.Connection
) -> None:
    with server(shop) as connection:
        connection.execute(f"GRANT {ROLE} TO {analyst.info.user} WITH INHERIT FALSE, SET TRUE")
    analyst.execute(f"SET ROLE {ROLE}")
    analyst.execute("SELECT pg_advisory_lock(1)")
    assert list(ended(shop, LONG_S)) == [analyst.info.backend_pid]


def test_a_user_who_only_administers_the_role_is_not_an_analyst(
    shop: App, analyst: psycopg.Connection
) -> None:
    """Like the creator of the role, which may be the user that builds and loads."""
    with server(shop) as connection:
        connection.execute(
            f"GRANT {ROLE} TO {analyst.info.user} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE"
        )
    analyst.execute("SELECT pg_advisory_lock(1)")
    assert ended(shop, 0.0) == {}


def test_a_user_who_writes_the_catalogue_is_not_an_analyst(
    shop: App, analyst: psycopg.Connection
) -> None:
    analyst.execute("SELECT pg_advisory_lock(1)")
    with server(shop) as connection:
        connection.execute("SELECT pg_advisory_lock(2)")
        connection.execute(f"GRANT INSERT ON product TO {analyst.info.user}")
        assert ended(shop, 0.0) == {}
        connection.execute(f"REVOKE INSERT ON product FROM {analyst.info.user}")
        assert list(ended(shop, LONG_S)) == [analyst.info.backend_pid]


def test_sessions_in_another_database_are_ignored(shop: App, analyst: psycopg.Connection) -> None:
    where = {"host": analyst.info.host, "port": analyst.info.port, "user": analyst.info.user}
    with psycopg.connect(**where, dbname="postgres", autocommit=True) as elsewhere:
        elsewhere.execute("SELECT pg_advisory_lock(1)")
        assert ended(shop, LONG_S) == {}


def test_the_watchdog_runs_while_it_is_open_and_logs_whom_it_ended(
    shop: App, analyst: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lookalike.watchdog")
    with AnalystWatchdog(shop.engine, LONG_S, every_s=0.05):
        time.sleep(0.2)
        analyst.execute("SELECT pg_advisory_lock(%s)", [LockKey.INDEX_BUILD.value])
        pid = analyst.info.backend_pid
        wait_until(lambda: state(shop, pid) is None, "the session goes on")
        wait_until(lambda: caplog.records, "nothing was logged")
    assert [record.getMessage() for record in caplog.records] == [
        f"ended a session of the analyst {analyst.info.user} (pid {pid}): "
        "it asked for an advisory lock"
    ]


def test_a_user_without_the_right_to_end_sessions_logs_it_once(
    shop: App, analyst: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """The analyst is connected and holds a lock until the right to end sessions is granted."""
    analyst.execute("SELECT pg_advisory_lock(%s)", [LockKey.INDEX_BUILD.value])
    pid = analyst.info.backend_pid
    with server(shop) as connection:
        connection.execute("CREATE ROLE tenant LOGIN")
    try:
        settings = shop.settings.model_copy(update={"database_url": as_tenant(shop)})
        with App(settings) as app, AnalystWatchdog(app.engine, LONG_S, every_s=0.05):
            wait_until(lambda: caplog.records, "nothing was logged")
            time.sleep(0.3)
            [record] = caplog.records
            assert "GRANT pg_read_all_stats, pg_signal_backend" in record.getMessage()
            assert state(shop, pid) is not None
            with server(shop) as connection:
                connection.execute("GRANT pg_read_all_stats, pg_signal_backend TO tenant")
            wait_until(lambda: state(shop, pid) is None, "the session goes on")
    finally:
        with server(shop) as connection:
            connection.execute("DROP ROLE tenant")


def as_tenant(shop: App) -> str:
    return (shop.settings.database_url or "").replace("postgres@", "tenant@")


def test_the_watchdog_survives_a_database_that_is_empty_or_unreachable(
    empty_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with App(Settings(home=tmp_path, database_url=empty_url)) as app:
        assert ended(app, LONG_S) == {}
    gone = empty_url.replace("/test_", "/no_such_")
    settings = Settings(home=tmp_path, database_url=gone)
    with App(settings) as app, AnalystWatchdog(app.engine, LONG_S, every_s=0.02):
        wait_until(lambda: caplog.records, "nothing was logged")
        time.sleep(0.2)
    assert len(caplog.records) == 1 and "not watched for now" in caplog.text
