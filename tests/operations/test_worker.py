"""The worker: the rebuild policy as a pure function, and a running worker under failures."""

from __future__ import annotations

import logging
import time
from math import inf
from typing import Any

import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.db import notifications
from app.db.engine import snapshot
from app.db.locks import LockKey
from app.index import delta_cost
from support.colours import choose_colours
from support.shop import add, numbered
from support.worker_threads import WorkerThread, running, wait_until


def test_the_worker_builds_the_first_index_and_again_after_enough_changes(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, numbered(40))
    with running(WorkerThread(app, sql)) as runner:
        wait_until(lambda: runner.published() == 1)
        add(app, numbered(4, first=40))
        wait_until(lambda: runner.value("delta_rows") == 4)
        runner.observe_again()
        assert runner.published() == 1
        add(app, numbered(1, first=44))
        wait_until(lambda: runner.published() == 2)
        wait_until(lambda: runner.value("index_rows") == 45)
        assert runner.value("delta_rows") == 0


def test_a_notification_arrives_long_before_the_poll(app: App, sql: psycopg.Connection) -> None:
    with running(WorkerThread(app, sql, worker_poll_s=600)) as runner:
        # The second observation follows the connection of the listener.
        wait_until(lambda: runner.observations == 2)
        add(app, numbered(5))
        wait_until(lambda: runner.published() == 1)
        runner.stop.set()
        add(app, numbered(1, first=5))


def test_changes_without_notification_are_found_by_the_poll(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "notify", lambda connection: None)
    with running(WorkerThread(app, sql)) as runner:
        wait_until(lambda: runner.observations >= 2)
        add(app, numbered(5))
        wait_until(lambda: runner.published() == 1)


def test_a_failed_build_that_is_not_needed_any_more_is_healthy(
    app: App, sql: psycopg.Connection
) -> None:
    """A build is rejected after a good one, and nothing has changed since."""
    add(app, numbered(10))
    app.indexer.rebuild()
    sql.execute(
        "INSERT INTO index_build (model_id, cluster, state, reason, finished_at)"
        " SELECT model_id, cluster, 'rejected', 'the disk is full', now() FROM index_build"
    )
    stale_s = 0.3
    with running(WorkerThread(app, sql, worker_poll_s=0.05, worker_stale_s=stale_s)) as runner:
        time.sleep(stale_s)  # as long as the start counts as a success
        wait_until(lambda: runner.worker.liveness.status().healthy)
        runner.observe_again()
        assert runner.published() == 1


def test_deletions_are_counted_despite_a_notification_for_each(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, numbered(60))
    app.indexer.rebuild()
    with running(WorkerThread(app, sql, worker_poll_s=0.2)) as runner:
        runner.observe_again()
        app.catalog.delete([f"P{n:04}" for n in range(30)])

        def published_despite_another() -> bool:
            sql.execute("SELECT pg_notify(%s, '')", [notifications.CHANNEL])
            return runner.published() >= 2

        wait_until(published_despite_another)


def let_pass(sql: psycopg.Connection, time: str) -> None:
    """Move all builds into the past by an interval."""
    sql.execute("UPDATE index_build SET finished_at = finished_at - %s::interval", [time])


def test_an_old_index_takes_in_a_small_delta(app: App, sql: psycopg.Connection) -> None:
    add(app, numbered(40))
    app.indexer.rebuild()
    add(app, numbered(1, first=40))
    with running(WorkerThread(app, sql, worker_age_s=3600)) as runner:
        wait_until(lambda: runner.value("delta_rows") == 1)
        runner.observe_again()
        assert runner.published() == 1
        let_pass(sql, "2 hours")
        wait_until(lambda: runner.published() == 2)
        let_pass(sql, "2 hours")
        runner.observe_again()
        assert runner.published() == 2, "nothing changed since, so there is nothing to build"


def test_changes_that_lengthen_searches_are_built_in(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = {1: 0.4, 2: 0.6}  # by the number of changed rows
    asked = []

    def measure(_connection: Any, _model: Any, _build: Any, rows: int, **_: Any) -> float:
        asked.append(rows)
        return costs.get(rows, 0.0)

    monkeypatch.setattr(delta_cost, "measure", measure)
    add(app, numbered(40))
    app.indexer.rebuild()
    add(app, numbered(1, first=40))
    with running(WorkerThread(app, sql)) as runner:
        wait_until(lambda: runner.value("delta_rows") == 1)
        runner.observe_again()
        assert runner.published() == 1 and asked[-1] == 1
        assert len(asked) <= 2, "once for each size of the delta"
        add(app, numbered(1, first=41))
        wait_until(lambda: runner.published() == 2)


def test_the_cost_of_a_delta_is_measured(app: App) -> None:
    add(app, numbered(60))
    build = app.indexer.rebuild()
    with snapshot(app.engine) as connection:
        model = app.catalog.model()
        assert delta_cost.measure(connection, model, build, 99, max_delta_rows=1000) == 0
        cost = delta_cost.measure(connection, model, build, 100, max_delta_rows=1000)
        assert 0 <= cost < inf
    slow, fast = iter([9.0, 3.0, 5.0, 3.5, 4.0, 8.0]), iter([9.0, 2.0, 2.5, 2.0, 3.0, 2.0])
    assert delta_cost.share(lambda: next(slow), lambda: next(fast)) == pytest.approx(0.5)


def test_the_worker_keeps_the_minimum_interval(app: App, sql: psycopg.Connection) -> None:
    add(app, numbered(10))
    app.indexer.rebuild()  # manually; the interval also counts from this build
    add(app, numbered(10, first=10))
    with running(WorkerThread(app, sql, worker_every_s=3600)) as runner:
        runner.observe_again()
        assert (runner.published(), runner.value("delta_rows")) == (1, 10)
        let_pass(sql, "2 hours")
        wait_until(lambda: runner.published() == 2)


def test_deleted_rows_count_as_changed(app: App, sql: psycopg.Connection) -> None:
    add(app, numbered(40))
    with running(WorkerThread(app, sql)) as runner:
        wait_until(lambda: runner.published() == 1)
        sql.execute("DELETE FROM embedding WHERE picture_id IN (SELECT id FROM picture LIMIT 4)")
        wait_until(lambda: runner.value("gone_rows") == 4)
        assert runner.published() == 1
        sql.execute("DELETE FROM embedding WHERE picture_id IN "
                    "(SELECT picture_id FROM embedding LIMIT 1)")  # fmt: skip
        wait_until(lambda: runner.value("index_rows") == 35)


def test_of_two_workers_one_builds(
    app: App, settings: Settings, sql: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    add(app, numbered(20))
    with App(settings, choose=choose_colours) as elsewhere:
        runners = [
            WorkerThread(app, sql, worker_every_s=600),
            WorkerThread(elsewhere, sql, worker_every_s=600),
        ]
        with running(runners[0]), running(runners[1]):
            wait_until(lambda: all(runner.value("index_rows") == 20 for runner in runners))
            for runner in runners:
                runner.observe_again()
        assert (runners[0].count(), runners[0].published()) == (1, 1)
        tried = [runner.value("builds_total", outcome="failed") for runner in runners]
    assert tried == [0, 0]
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_during_a_build_of_another_process_the_worker_waits_without_an_error(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, numbered(5))
    sql.execute("SELECT pg_advisory_lock(%s)", [LockKey.INDEX_BUILD.value])
    with running(WorkerThread(app, sql)) as runner:
        wait_until(lambda: runner.value("builds_total", outcome="busy") >= 1)
        assert runner.count() == 0
        sql.execute("SELECT pg_advisory_unlock(%s)", [LockKey.INDEX_BUILD.value])
        wait_until(lambda: runner.published() == 1)


def test_the_worker_waits_between_attempts_while_another_builds(
    app: App, sql: psycopg.Connection
) -> None:
    """Even with short intervals, seconds pass until the next attempt."""
    add(app, numbered(5))
    sql.execute("SELECT pg_advisory_lock(%s)", [LockKey.INDEX_BUILD.value])
    with running(WorkerThread(app, sql, worker_poll_s=60)) as runner:
        wait_until(lambda: runner.value("builds_total", outcome="busy") >= 1)
        time.sleep(0.5)  # without a wait there would be dozens
        assert runner.value("builds_total", outcome="busy") <= 2
