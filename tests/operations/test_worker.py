"""The worker: the rebuild policy as a pure function, and a running worker under failures."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as some

from app.bootstrap import App
from app.config import Settings
from app.db import notifications
from app.db.engine import snapshot
from app.db.locks import LockKey
from app.db.queries import build_history
from app.errors import IndexUnwritable
from app.index import delta_cost
from app.index.builder import Indexer
from app.index.rebuild_policy import (
    IndexObservation,
    RebuildDecision,
    RebuildRules,
    backoff,
    decide,
    most_changes,
)
from app.operations.change_listener import ChangeListener
from app.operations.worker import Worker, WorkerObservation
from app.types import Build
from support.colours import choose_colours
from support.servers import crash, own_server, start
from support.shop import add, numbered

SOON_S = 300.0
QUICK: dict[str, Any] = {
    "worker_share": 0.1,
    "worker_every_s": 0.0,
    "worker_age_s": 3600.0,
    "worker_look_s": 0.01,
    "worker_poll_s": 0.05,
    "worker_backoff_s": 0.05,
    "worker_backoff_max_s": 0.4,
}
RULES = RebuildRules(
    share=0.1, cost=0.5, max_rows=1000, age_s=60, min_interval_s=10, backoff_s=2, backoff_max_s=100
)

# When to build


def test_without_an_index_any_row_causes_a_build() -> None:
    assert decide(IndexObservation(1, None), RULES) == RebuildDecision("there is no index yet", 0.0)
    assert decide(IndexObservation(0, None), RULES) == RebuildDecision(None, inf)


def test_changes_above_the_share_of_the_index_cause_a_build() -> None:
    assert decide(IndexObservation(10, 100), RULES).reason is None
    assert (
        decide(IndexObservation(11, 100), RULES).reason == "11 rows changed since an index of 100"
    )


def test_changes_cause_a_build_by_what_they_cost_where_that_is_known() -> None:
    few = RebuildRules.from_settings(Settings())
    million = IndexObservation(5_001, 10**6)
    assert decide(million, few).reason == "5001 rows changed since an index of 1000000"
    assert decide(replace(million, delta_cost=0.5), few).reason is None
    slow = decide(replace(million, changed_rows=2_000, delta_cost=0.51), few)
    assert slow.reason == "2000 changed rows lengthen a search by 51%"
    assert decide(IndexObservation(5, 100, delta_cost=0.0), few).reason is None
    assert decide(IndexObservation(11, 100, delta_cost=0.0), few).reason is not None


def test_an_edit_an_hour_causes_a_build_a_day() -> None:
    """Thirty days on a clock of this test, observed every minute."""
    few, builds, built_at, changed = RebuildRules.from_settings(Settings()), 0, 0.0, 0
    for minute in range(30 * 24 * 60):
        now = 60.0 * minute
        changed += minute % 60 == 0
        seen = IndexObservation(
            changed, 10**6, now - built_at, now - built_at, last_build_took_s=600, delta_cost=0.0
        )
        if decide(seen, few).reason is not None:
            builds, built_at, changed = builds + 1, now, 0
    assert builds == 29


def test_an_index_is_rebuilt_before_searches_refuse_its_delta() -> None:
    assert decide(IndexObservation(1000, 10**9), RULES).reason is None
    assert decide(IndexObservation(1001, 10**9), RULES).reason is not None
    assert RebuildRules.from_settings(Settings(max_delta_rows=20_000)).max_rows == 10_000


def test_a_smaller_delta_is_built_in_when_the_index_is_old() -> None:
    assert decide(IndexObservation(1, 100, build_age_s=59), RULES) == RebuildDecision(None, 1.0)
    assert decide(IndexObservation(1, 100, build_age_s=60), RULES).reason is not None
    assert decide(IndexObservation(0, 100, build_age_s=10**6), RULES) == RebuildDecision(None, inf)


def test_builds_keep_the_minimum_interval() -> None:
    assert decide(IndexObservation(50, 100, since_last_build_s=4), RULES) == RebuildDecision(
        None, 6.0
    )
    assert decide(IndexObservation(50, 100, since_last_build_s=10), RULES).reason is not None
    assert decide(
        IndexObservation(50, 100, since_last_build_s=10, last_build_took_s=25), RULES
    ) == RebuildDecision(None, 15.0)


def test_failures_double_the_wait_up_to_a_limit() -> None:
    assert [backoff(n, RULES) for n in (0, 1, 2, 3, 7, 10**9)] == [0, 2, 4, 8, 100, 100]
    assert decide(
        IndexObservation(50, 100, since_last_build_s=0, failures=4), RULES
    ) == RebuildDecision(None, 16.0)


rules = some.builds(
    RebuildRules,
    share=some.floats(0.001, 10),
    cost=some.floats(0.001, 10),
    max_rows=some.floats(0, 1e6),
    age_s=some.floats(0, 1e6),
    min_interval_s=some.floats(0, 1e6),
    backoff_s=some.floats(0.001, 1e4),
    backoff_max_s=some.floats(0.001, 1e6),
)
observations = some.builds(
    IndexObservation,
    changed_rows=some.integers(0, 10**7),
    index_rows=some.none() | some.integers(0, 10**7),
    build_age_s=some.floats(0, 1e7) | some.just(inf),
    since_last_build_s=some.none() | some.floats(0, 1e7) | some.just(inf),
    last_build_took_s=some.floats(0, 1e5),
    failures=some.integers(0, 10**6),
    delta_cost=some.none() | some.floats(0, 100),
)


@given(observations, rules)
def test_a_decision_has_either_a_reason_or_a_wait(
    seen: IndexObservation, rules: RebuildRules
) -> None:
    decision = decide(seen, rules)
    assert (decision.reason is not None) == (decision.wait_s == 0)


@given(observations, rules)
def test_a_build_is_due_after_the_wait(seen: IndexObservation, rules: RebuildRules) -> None:
    wait_s = decide(seen, rules).wait_s
    if wait_s == inf:
        assert seen.changed_rows == 0
        return
    later = 1.000001 * wait_s + 1e-3
    since_s = None if seen.since_last_build_s is None else seen.since_last_build_s + later
    after = replace(seen, build_age_s=seen.build_age_s + later, since_last_build_s=since_s)
    assert decide(after, rules).reason is not None


@given(observations, rules, some.integers(1, 1000))
def test_more_changes_never_lengthen_the_wait(
    seen: IndexObservation, rules: RebuildRules, more: int
) -> None:
    changed = replace(seen, changed_rows=seen.changed_rows + more)
    assert decide(changed, rules).wait_s <= decide(seen, rules).wait_s


@given(observations, rules)
def test_no_build_is_due_within_the_minimum_interval(
    seen: IndexObservation, rules: RebuildRules
) -> None:
    if seen.since_last_build_s is not None and seen.since_last_build_s < max(
        rules.min_interval_s, backoff(seen.failures, rules)
    ):
        assert decide(seen, rules).reason is None


# The running worker


class WorkerThread:
    """A worker in a thread, with the values that tests observe."""

    def __init__(self, app: App, sql: psycopg.Connection, **settings: Any) -> None:
        self.settings = app.settings.model_copy(update=QUICK | settings)
        self.stop = threading.Event()
        self.worker = Worker(app.engine, app.indexer, self.settings, self.stop)
        self.sql = sql
        self.thread = threading.Thread(target=self.worker.run)
        self.observations = 0
        self._observe = self.worker._observer.observe
        self.worker._observer.observe = self._counted  # type: ignore[method-assign]

    def _counted(self, *, count_deleted: bool) -> WorkerObservation:
        self.observations += 1
        return self._observe(count_deleted=count_deleted)

    def observe_again(self) -> None:
        """Wait until the worker has observed the database, and acted on it, at least once more."""
        before = self.observations
        wait_until(lambda: self.observations >= before + 3)

    def published(self) -> int:
        return self.count("state IN ('published', 'retired')")

    def count(self, where: str = "true") -> int:
        row = self.sql.execute(f"SELECT count(*) FROM index_build WHERE {where}").fetchone()  # type: ignore[arg-type]
        assert row is not None
        return int(row[0])

    def value(self, name: str, **labels: str) -> float:
        return self.worker.metrics.registry.get_sample_value(f"lookalike_{name}", labels) or 0.0


def wait_until(condition: Callable[[], bool], within_s: float = SOON_S) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.02)


@contextmanager
def running(runner: WorkerThread) -> Iterator[WorkerThread]:
    runner.thread.start()
    try:
        yield runner
    finally:
        runner.stop.set()
        runner.thread.join(SOON_S)
        assert not runner.thread.is_alive()


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


# Failures


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


# The command

LOOKALIKE = Path(sys.executable).with_name("lookalike")
BOOT_S = 300.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def command(settings: Settings, log: Path, **more: object) -> Iterator[tuple[Any, str]]:
    """`lookalike worker` as a process; yields it and the address of its metrics."""
    port = free_port()
    named: dict[str, object] = {
        "home": settings.home, "database_url": settings.database_url,
        "worker_metrics_port": port, "worker_look_s": 0.05,
    }  # fmt: skip
    words = {f"LOOKALIKE_{name.upper()}": str(value) for name, value in (named | more).items()}
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", "from app.cli import main; main()", "worker"],
            env=os.environ | words, stdout=file, stderr=file,
        )  # fmt: skip
        try:
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=300) as answer:
            return bool(answer.status == 200)
    except (URLError, ConnectionError, TimeoutError):
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_waiting_worker_at_once(
    app: App, settings: Settings, sql: psycopg.Connection, tmp_path: Path, number: int
) -> None:
    add(app, numbered(5))
    log = tmp_path / "log"
    with command(settings, log) as (process, address):
        wait_until(lambda: answers(f"{address}/healthz"), BOOT_S)
        wait_until(
            lambda: sql.execute("SELECT FROM index_build WHERE state = 'published'").rowcount > 0
        )
        time.sleep(0.2)
        began = time.monotonic()
        process.send_signal(number)
        assert process.wait(SOON_S) == 0, log.read_text()
        # Half a second on an idle machine; the next poll would be in a minute.
        assert time.monotonic() - began < 50
    assert "The worker has stopped." in log.read_text()
    assert "Traceback" not in log.read_text()


def test_a_signal_ends_a_running_build(
    app: App, settings: Settings, sql: psycopg.Connection, tmp_path: Path
) -> None:
    """The build waits for a lock, so that it runs until the test ends it."""
    add(app, numbered(5))
    log = tmp_path / "log"
    with (
        psycopg.connect(str(settings.database_url)) as gate,
        command(settings, log) as (process, _),
    ):
        gate.execute("LOCK TABLE query_sample IN ACCESS EXCLUSIVE MODE")
        held = "SELECT FROM index_build WHERE state = 'building'"
        wait_until(lambda: sql.execute(held).rowcount == 1, BOOT_S)
        waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'" \
            " AND datname = current_database()"  # fmt: skip
        wait_until(lambda: sql.execute(waiting).rowcount == 1)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(SOON_S) == 0, log.read_text()
        assert time.monotonic() - began < 50
        assert sql.execute("SELECT state, reason FROM index_build").fetchall() == [
            ("rejected", "stopped")
        ]
        assert sql.execute(waiting).rowcount == 0, "the statement was cancelled"
    assert list(settings.index_folder.glob("*")) == []
    assert app.indexer.rebuild().state == "published"


def test_a_port_in_use_is_an_error_message(settings: Settings, app: App, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with command(settings, log, worker_metrics_port=port) as (process, _):
            assert process.wait(BOOT_S) == 1
    assert f"port {port}" in log.read_text() and "Traceback" not in log.read_text()


def test_the_most_changes_are_the_lesser_of_share_and_limit() -> None:
    assert (most_changes(100, RULES), most_changes(10**6, RULES)) == (10, 1000)
