"""The worker: observes changes, rebuilds the index when it is due, and survives errors."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace
from math import inf, nan

from sqlalchemy import Connection, Engine

from app.concurrency import RepeatedWarning
from app.config import Settings
from app.db.engine import check_schema, snapshot
from app.db.queries import build_history, embeddings, index_builds, index_delta, models
from app.errors import BuildRunning, LookalikeError
from app.index import delta_cost
from app.index.builder import Indexer
from app.index.rebuild_policy import IndexObservation, RebuildRules, decide
from app.operations.change_listener import ChangeListener
from app.operations.health import Liveness
from app.operations.metrics import BuildOutcome, WorkerMetrics
from app.operations.stop_signals import StopRequested
from app.types import Build, Model

RETRY_S = 5.0
"""Seconds to wait after an error, and while another host builds."""

_log = logging.getLogger("lookalike.worker")


class Worker:
    """Keeps the index of one database fresh, in one thread."""

    def __init__(
        self, engine: Engine, indexer: Indexer, settings: Settings, stop: threading.Event
    ) -> None:
        self.metrics = WorkerMetrics()
        self.liveness = Liveness(engine, settings.worker_stale_s)
        self._observer = IndexObserver(engine, settings.max_delta_rows, settings.worker_poll_s)
        self._indexer = indexer
        self._settings = settings
        self._rules = RebuildRules.from_settings(settings)
        self._stop = stop
        self._listener = ChangeListener(engine, stop)
        self._notified = False
        self._ended = -inf  # monotonic time at which our last attempt ended
        self._failures = (0, 0)  # id of the build in use, and consecutive failed attempts since
        self._ineffective_builds = 0  # consecutive builds that did not reduce the delta
        self._delta_before: int | None = None  # the delta before a build not yet evaluated
        self._warning = RepeatedWarning(_log)

    def run(self) -> None:
        """Run until `stop` is set, or StopRequested is raised in this thread."""
        try:
            while not self._stop.is_set():
                wait_s = self._run_once()
                # A burst of changes is observed once.
                self._stop.wait(self._settings.worker_look_s)
                wait_s = min(wait_s, self._settings.worker_poll_s)
                self._notified = self._listener.wait(wait_s)
        finally:
            self._listener.close()

    def _run_once(self) -> float:
        """Observe, and build if it is due; returns the seconds to wait for a notification."""
        try:
            return self._observe_and_build()
        except LookalikeError as exc:
            self._record_error(str(exc))
        except Exception as exc:
            _log.exception("the worker failed and will try again")
            self._fail(f"{type(exc).__name__}: {exc}")
        return RETRY_S

    def _observe_and_build(self) -> float:
        observation = self._observer.observe(count_deleted=not self._notified)
        self._export(observation)
        self._evaluate_last_build(observation)
        index_observation = self._index_observation(observation)
        decision = decide(index_observation, self._rules)
        if decision.reason is not None:
            return self._build(observation, decision.reason)
        # Without changes, the builds that failed are not needed any more.
        if not index_observation.failures or not index_observation.changed_rows:
            self.liveness.succeeded()
            self._warning.clear()
        return decision.wait_s

    def _index_observation(self, observation: WorkerObservation) -> IndexObservation:
        history, since_own_attempt_s = observation.history, time.monotonic() - self._ended
        # An index of unknown age counts as infinitely old.
        age_s = inf if history.age_s is None else history.age_s
        since_build_s = inf if history.since_last_build_s is None else history.since_last_build_s
        return IndexObservation(
            changed_rows=observation.delta + observation.deleted,
            index_rows=observation.build.rows if observation.build else None,
            build_age_s=age_s,
            since_last_build_s=min(since_own_attempt_s, since_build_s),
            last_build_took_s=history.took_s,
            failures=max(
                self._failed_with(observation.build), history.failures, self._ineffective_builds
            ),
            delta_cost=observation.delta_cost,
        )

    def _failed_with(self, build: Build | None) -> int:
        """Our consecutive failed attempts; a build published since, by any host, resets them."""
        build_id, failures = self._failures
        return failures if build_id == _id(build) else 0

    def _build(self, observation: WorkerObservation, reason: str) -> float:
        _log.info("building: %s", reason)
        self._listener.close()  # unread notifications would fill the queue of the whole server
        began = time.monotonic()
        outcome: BuildOutcome = "failed"
        try:
            outcome = self._rebuild(observation)
        except BuildRunning:
            outcome = "busy"
        except StopRequested:
            outcome = "stopped"
            raise
        except BaseException:
            self._failures = (_id(observation.build), self._failed_with(observation.build) + 1)
            raise
        finally:
            now = time.monotonic()
            self.metrics.built(outcome, now - began)
            self._ended = self._ended if outcome == "busy" else now
        if outcome == "busy":
            # Not with the listener: after reconnecting it would return at once.
            self._stop.wait(min(RETRY_S, self._settings.worker_poll_s))
        return 0.0

    def _rebuild(self, observation: WorkerObservation) -> BuildOutcome:
        build = self._indexer.rebuild()
        if build.state != "published":
            self._record_error(f"Build {build.id} was not published: {build.reason}.")
            return "rejected"
        _log.info("build %d published: %d rows in %.1f s", build.id, build.rows, build.seconds)
        self._failures, self._delta_before = (0, 0), observation.delta
        self._warning.clear()
        self.liveness.succeeded()
        return "published"

    def _evaluate_last_build(self, observation: WorkerObservation) -> None:
        """Check that the build just published reduced the delta; if not, record why."""
        build, delta = observation.build, observation.delta
        if build is None or not self._is_too_large(observation):
            self._ineffective_builds, self._delta_before = 0, None
            return
        before, self._delta_before = self._delta_before, None
        if before is None or delta < before:
            return
        self._ineffective_builds += 1
        self.metrics.fruitless()
        cause = self._observer.explain_delta(build)
        self._record_error(f"Build {build.id} left {delta} changed rows of {before}. {cause}")

    def _is_too_large(self, observation: WorkerObservation) -> bool:
        """Whether the delta alone causes a build, however new the index is."""
        rows = observation.build.rows if observation.build else None
        fresh = IndexObservation(observation.delta, rows, delta_cost=observation.delta_cost)
        return decide(fresh, replace(self._rules, age_s=inf)).reason is not None

    def _export(self, observation: WorkerObservation) -> None:
        metrics, build, age_s = self.metrics, observation.build, observation.history.age_s
        metrics.delta_rows.set(observation.delta)
        metrics.gone_rows.set(observation.deleted)
        metrics.index_rows.set(build.rows if build else 0)
        recall = build.recall_at_10 if build else None
        metrics.recall.set(nan if recall is None else recall)
        metrics.set_build_age(nan if age_s is None else age_s)

    def _record_error(self, error: str) -> None:
        """Record an error; a repeated one is logged once."""
        self._warning.warn(error)
        self._fail(error)

    def _fail(self, error: str) -> None:
        self.liveness.failed(error)
        self.metrics.failed()


def _id(build: Build | None) -> int:
    return build.id if build else 0


@dataclass(frozen=True, slots=True)
class _MeasuredCost:
    """What the delta of a build (id) cost when it had so many rows."""

    build: int
    rows: int
    cost: float


@dataclass(frozen=True, slots=True)
class WorkerObservation:
    """The build in use and the changes since, in rows; counts stop above `max_delta`."""

    build: Build | None
    delta: int
    """Changed embeddings; without a build, all of them."""
    deleted: int
    """Rows of the build that were deleted since, as last counted."""
    history: build_history.BuildHistory
    delta_cost: float | None = None
    """As in `IndexObservation`."""


class IndexObserver:
    """Observes one database, and caches the count of deleted rows and the cost of the delta, which
    are expensive to find."""

    def __init__(self, engine: Engine, max_delta: int, recount_s: float = inf) -> None:
        self._engine = engine
        self._at_most = max_delta + 1  # no rule depends on more
        self._deleted = (0, 0)  # id of the build, and its deleted rows
        self._recount_s = recount_s
        self._counted_at = -inf
        self._cost = _MeasuredCost(0, 0, 0.0)

    def observe(self, *, count_deleted: bool) -> WorkerObservation:
        """Observe in one snapshot. Raises NoModel, SchemaMismatch, DatabaseUnavailable.

        Counting deleted rows reads the whole table. Without `count_deleted` it is done once per
        build, and again when `recount_s` seconds have passed.
        """
        with snapshot(self._engine) as connection:
            check_schema(connection)
            model = models.require_active(connection)
            build = next(iter(index_builds.usable(connection, model.id)), None)
            delta = self._delta(connection, model, build)
            deleted = self._count_deleted(connection, build, delta, count_deleted)
            history = build_history.build_history(connection, model.id, build)
            cost = self._delta_cost(connection, model, build, delta)
            return WorkerObservation(build, delta, deleted, history, cost)

    def explain_delta(self, build: Build) -> str:
        """A sentence on why rows stay in the delta of a new build, as far as this user may see."""
        with self._engine.connect() as connection:
            if index_delta.has_future_stamps(connection, build.model_id):
                return "Rows carry stamps of another server's future; run `lookalike migrate`."
            if transactions := build_history.blocking_transactions(connection):
                return f"Open transactions that write: {'; '.join(map(str, transactions))}."
            return "No transaction is open now: rows change faster than builds can follow."

    def _delta(self, connection: Connection, model: Model, build: Build | None) -> int:
        if build is None:
            return embeddings.count_up_to(connection, model, at_most=self._at_most)
        return index_delta.delta_rows(connection, build, self._at_most)

    def _delta_cost(
        self, connection: Connection, model: Model, build: Build | None, rows: int
    ) -> float | None:
        """The cost of the delta, measured again for another build and once it grew by a tenth."""
        if build is None or rows >= self._at_most:
            return None
        if build.id != self._cost.build or rows > 1.1 * self._cost.rows:
            cost = delta_cost.measure(
                connection, model, build, rows, max_delta_rows=self._at_most - 1
            )
            self._cost = _MeasuredCost(build.id, rows, cost)
        return self._cost.cost

    def _count_deleted(
        self, connection: Connection, build: Build | None, delta: int, recount: bool
    ) -> int:
        if build is None:
            return 0
        now = time.monotonic()
        if recount or self._deleted[0] != build.id or now - self._counted_at >= self._recount_s:
            self._counted_at = now
            self._deleted = (build.id, index_delta.deleted_rows(connection, build, delta))
        return self._deleted[1]
