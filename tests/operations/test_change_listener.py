"""Notifications of changes: lost connections, floods, and writers that never wait for them."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.db import notifications
from app.operations.change_listener import ChangeListener
from app.types import Build
from support.colours import choose_colours
from support.servers import crash, own_server, start
from support.shop import add, numbered
from support.worker_threads import WorkerThread, running, wait_until


def test_a_listener_reconnects_after_a_lost_connection(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.operations.change_listener.RETRY_S", 0.05)
    listening = "FROM pg_stat_activity WHERE application_name = 'lookalike worker'"
    here = f"{listening} AND datname = current_database() AND query LIKE 'LISTEN%'"
    with running(WorkerThread(app, sql, worker_poll_s=600)) as runner:
        wait_until(lambda: sql.execute(f"SELECT {here}").fetchone() is not None)  # type: ignore[arg-type]
        lost = sql.execute(
            f"SELECT pid FROM (SELECT pid, pg_terminate_backend(pid) {here})"
        ).fetchone()  # type: ignore[arg-type]
        assert lost is not None
        another = f"SELECT {here} AND pid <> {lost[0]}"
        wait_until(lambda: sql.execute(another).rowcount == 1)  # type: ignore[arg-type]
        add(app, numbered(5))
        wait_until(lambda: runner.published() == 1)
        runner.stop.set()
        add(app, numbered(1, first=10))


def unread(sql: psycopg.Connection) -> bool:
    """Whether a listener leaves notifications in the server's queue."""
    return sql.execute("SELECT pg_notification_queue_usage() > 0").fetchone() == (True,)


def flood(sql: psycopg.Connection, count: int) -> None:
    """Distinct notifications of 4 KB each: more than the buffers of server and client hold."""
    sql.execute(
        "SELECT count(pg_notify(%s, repeat('x', 4000) || n)) FROM generate_series(1, %s) AS n",
        [notifications.CHANNEL, count],
    )


def test_a_flood_of_notifications_wakes_the_worker_and_is_not_read_to_the_end(
    app: App, sql: psycopg.Connection
) -> None:
    listener = ChangeListener(app.engine, threading.Event())
    assert listener.wait(300)
    flood(sql, 10_000)
    wait_until(lambda: unread(sql))
    heard = sum(listener.wait(0.05) for _ in range(10))
    assert 1 <= heard <= 3  # the notifications, the new connection, and perhaps one more packet
    wait_until(lambda: not unread(sql))
    flood(sql, 1)
    assert listener.wait(300)
    listener.close()


def test_no_notifications_queue_up_during_a_build(app: App, sql: psycopg.Connection) -> None:
    add(app, numbered(5))
    runner = WorkerThread(app, sql)

    def rebuild() -> Build:
        flood(sql, 10_000)
        time.sleep(0.2)
        piled.append(unread(sql))
        return build()

    build, piled = app.indexer.rebuild, list[bool]()
    app.indexer.rebuild = rebuild  # type: ignore[method-assign]
    with running(runner):
        wait_until(lambda: runner.published() == 1)
        add(app, numbered(5, first=5))
        wait_until(lambda: runner.published() == 2)
    assert piled == [False, False]


def test_writers_are_not_blocked_by_a_full_notification_queue(tmp_path: Path) -> None:
    with own_server(max_notify_queue_pages="64") as home:
        settings = Settings(home=tmp_path, database_url=start(home))
        with App(settings, choose=choose_colours) as app:
            app.initialise()
            with psycopg.connect(str(settings.database_url)) as deaf:
                deaf.execute("LISTEN anything")
                deaf.commit()
                deaf.execute("SELECT 1")
                with psycopg.connect(str(settings.database_url), autocommit=True) as sql:
                    with pytest.raises(psycopg.errors.ProgramLimitExceeded):
                        for _ in range(200):
                            flood(sql, 1)
                    add(app, numbered(3))
                    assert sql.execute("SELECT count(*) FROM product").fetchone() == (3,)


def test_the_worker_survives_a_restart_of_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.operations.change_listener.RETRY_S", 0.05)
    monkeypatch.setattr("app.operations.worker.RETRY_S", 0.05)
    with own_server() as home:
        url = start(home)
        settings = Settings(home=tmp_path, database_url=url)
        with App(settings, choose=choose_colours) as app:
            app.initialise()
            add(app, numbered(5))
            with psycopg.connect(url, autocommit=True) as sql:
                runner = WorkerThread(app, sql)
                with running(runner):
                    wait_until(lambda: runner.published() == 1)
                    crash(home)
                    wait_until(lambda: not runner.worker.liveness.status().healthy)
                    assert runner.thread.is_alive()
                    start(home)
                    with psycopg.connect(url, autocommit=True) as runner.sql:
                        add(app, numbered(5, first=5))
                        wait_until(lambda: runner.published() == 2)
                        wait_until(lambda: runner.worker.liveness.status().healthy)
