"""Builds of the worker that fail, are rejected or change nothing: pauses and reasons."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from app.bootstrap import App
from app.db.queries import build_history
from app.errors import IndexUnwritable
from app.index.builder import Indexer
from app.types import Build
from support.shop import add, numbered
from support.worker_threads import WorkerThread, running, wait_until


def test_failing_builds_are_retried_with_growing_delays(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(app, numbered(5))
    tried: list[float] = []
    rebuild = Indexer.rebuild

    def failing(self: Indexer) -> Any:
        tried.append(time.monotonic())
        if len(tried) < 5:
            raise IndexUnwritable("The disk is full.")
        return rebuild(self)

    monkeypatch.setattr(Indexer, "rebuild", failing)
    with running(WorkerThread(app, sql, worker_backoff_s=0.1, worker_backoff_max_s=0.4)) as runner:
        monkeypatch.setattr("app.operations.worker.RETRY_S", 0.01)
        wait_until(lambda: len(tried) == 4)
        assert (
            runner.worker.liveness.status().as_dict()["last_error"]["value"] == "The disk is full."
        )
        wait_until(lambda: runner.published() == 1)
        wait_until(lambda: runner.worker.liveness.status().as_dict()["last_error"]["value"] is None)
        assert runner.value("builds_total", outcome="failed") == 4
        assert runner.value("last_error_timestamp_seconds") > 0
    waits = [b - a for a, b in pairwise(tried)]
    assert [wait >= least for wait, least in zip(waits, (0.1, 0.2, 0.4, 0.4), strict=True)] == (
        [True] * 4
    ), waits


def test_rejected_builds_back_off_also_after_a_restart(app: App, sql: psycopg.Connection) -> None:
    add(app, numbered(5))
    app.indexer.rebuild()
    add(app, numbered(5, first=5))
    for reason in ("recall", "recall", "stopped"):
        sql.execute(
            "INSERT INTO index_build (model_id, cluster, state, reason, finished_at) SELECT"
            " model_id, cluster, 'rejected', %s, clock_timestamp() FROM index_build LIMIT 1",
            [reason],
        )
    runner = WorkerThread(app, sql)
    assert runner.worker._observer.observe(count_deleted=True).history.failures == 2
    with running(WorkerThread(app, sql, worker_backoff_s=600, worker_backoff_max_s=6000)) as runner:
        wait_until(lambda: runner.value("delta_rows") == 5)
        runner.observe_again()
        assert runner.published() == 1


def test_an_unexpected_error_does_not_end_the_worker(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(app, numbered(5))
    rebuild, faults = Indexer.rebuild, [ZeroDivisionError("a fault"), MemoryError("no memory")]

    def faulty(self: Indexer) -> Any:
        if faults:
            raise faults.pop()
        return rebuild(self)

    monkeypatch.setattr(Indexer, "rebuild", faulty)
    monkeypatch.setattr("app.operations.worker.RETRY_S", 0.01)
    with running(WorkerThread(app, sql)) as runner:
        wait_until(lambda: runner.published() == 1)


FUTURE = """
ALTER TABLE embedding DISABLE TRIGGER embedding_stamp;
UPDATE embedding SET changed_in = (SELECT '9999999'::xid8);
ALTER TABLE embedding ENABLE ALWAYS TRIGGER embedding_stamp;
"""


def test_builds_that_do_not_reduce_the_delta_back_off_with_a_reason(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(app, numbered(5))
    sql.execute(FUTURE)
    tried: list[float] = []
    rebuild = Indexer.rebuild

    def timed(self: Indexer) -> Build:
        tried.append(time.monotonic())
        return rebuild(self)

    monkeypatch.setattr(Indexer, "rebuild", timed)
    slow = {"worker_backoff_s": 0.2, "worker_backoff_max_s": 600}
    with running(WorkerThread(app, sql, **slow)) as runner:
        wait_until(lambda: runner.value("builds_total", outcome="fruitless") >= 3)
        waits = [after - before for before, after in pairwise(tried)]
        assert waits[0] >= 0.2 and waits[1] >= 0.4
        errors: list[str] = []

        def reported() -> bool:
            """Until the next build, which clears the error."""
            error = runner.worker.liveness.status().as_dict()["last_error"]["value"]
            errors.extend([error] if error else [])
            return bool(errors)

        wait_until(reported)
    assert "left 5 changed rows of 5" in errors[0] and "lookalike migrate" in errors[0]


def test_open_writing_transactions_are_named(
    app: App, database_url: str, sql: psycopg.Connection
) -> None:
    """Its rows are in no build; here they are committed right after the build."""
    add(app, numbered(5))
    app.indexer.rebuild()
    with (
        psycopg.connect(database_url, application_name="a forgotten console") as other,
        psycopg.connect(database_url, application_name="importer") as late,
    ):
        other.execute("INSERT INTO duplicate_verdict VALUES ('a', 'b', true, 'me')")
        late.execute("UPDATE embedding SET vec = vec")
        runner = WorkerThread(app, sql)
        app.indexer.rebuild()
        late.commit()
        before = runner.worker._observer.observe(count_deleted=True)
        assert before.delta == 5
        runner.worker._delta_before = 5
        runner.worker._evaluate_last_build(before)
        error = runner.worker.liveness.status().as_dict()["last_error"]["value"]
        assert (
            f"pid {other.info.backend_pid} (user postgres, application a forgotten console" in error
        )
        assert "idle in transaction for " in error
        assert "importer" not in error


def test_a_user_without_privileges_sees_the_pid_of_open_transactions(
    app: App, database_url: str, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE ROLE nobody_much")
    with app.engine.connect() as connection, psycopg.connect(database_url) as other:
        other.execute("SELECT pg_current_xact_id()")
        pid = other.info.backend_pid
        (mine,) = [
            h for h in build_history.blocking_transactions(connection, 100) if h.who == f"pid {pid}"
        ]
        assert mine.state == "idle in transaction" and mine.age_s is not None
        connection.exec_driver_sql("SET ROLE nobody_much")
        (seen,) = [
            h for h in build_history.blocking_transactions(connection, 100) if h.who == f"pid {pid}"
        ]
        assert (seen.user, seen.state, seen.age_s) == ("postgres", None, None)
    assert "open for an unknown time" in str(seen)
    sql.execute("DROP ROLE nobody_much")


def test_a_clock_that_was_set_back_does_not_prevent_builds(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, numbered(40))
    app.indexer.rebuild()
    sql.execute("UPDATE index_build SET finished_at = finished_at + interval '1 year'")
    add(app, numbered(1, first=40))
    with running(WorkerThread(app, sql, worker_every_s=600)) as runner:
        wait_until(lambda: runner.published() == 2)
