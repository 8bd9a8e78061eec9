"""The worker: looks at what changed, builds when it is time, and goes on whatever happens."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from math import inf, nan

from sqlalchemy import Connection, Engine

from app.concurrency import RepeatedWarning
from app.config import Settings
from app.db.engine import check_schema, snapshot
from app.db.queries import build_history, embeddings, index_builds, index_delta, models
from app.errors import BuildRunning, LookalikeError
from app.index.builder import Indexer
from app.index.rebuild_policy import IndexObservation, RebuildRules, allowed_changes, decide
from app.operations.change_listener import ChangeListener
from app.operations.health import Liveness
from app.operations.metrics import BuildOutcome, WorkerMetrics
from app.operations.stop_signals import StopRequested
from app.types import Build, Model

RETRY_S = 5.0
"""After a look that failed, and while another host builds."""


_log = logging.getLogger("lookalike.worker")


class Worker:
    """Keeps the index of one database fresh, from one thread."""

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
        self._heard = False
        self._ended = -inf  # when our last attempt ended, by the monotonic clock
        self._failures = (0, 0)  # attempts in a row that failed beside the build with this id
        self._fruitless = 0
        self._before: int | None = None  # the delta before a build whose effect is to be judged
        self._warning = RepeatedWarning(_log)

    def run(self) -> None:
        """Work until `stop` is set, or Stopped is raised in this thread."""
        try:
            while not self._stop.is_set():
                wait_s = self._turn()
                # Changes that come in a burst are looked at together.
                self._stop.wait(self._settings.worker_look_s)
                wait_s = min(wait_s, self._settings.worker_poll_s)
                self._heard = self._listener.wait(wait_s)
        finally:
            self._listener.close()

    def _turn(self) -> float:
        """Look, and build if it is time; returns the seconds to wait for word of a change."""
        try:
            return self._look_and_build()
        except LookalikeError as exc:
            self._say(str(exc))
        except Exception as exc:
            _log.exception("the worker failed and will try again")
            self._fail(f"{type(exc).__name__}: {exc}")
        return RETRY_S

    def _look_and_build(self) -> float:
        look = self._observer.observe(count_gone=not self._heard)
        self._show(look)
        self._judge(look)
        seen = self._seen(look)
        decision = decide(seen, self._rules)
        if decision.reason is not None:
            return self._build(look, decision.reason)
        if not seen.failures or not seen.changed_rows:  # what failed is not wanted any more
            self.liveness.succeeded()
            self._warning.clear()
        return decision.wait_s

    def _seen(self, look: WorkerObservation) -> IndexObservation:
        record, own = look.record, time.monotonic() - self._ended
        # Without a moment of the past to count from, the index is as old as can be.
        age_s = inf if record.age_s is None else record.age_s
        since_s = own if record.since_last_s is None else min(own, record.since_last_s)
        return IndexObservation(
            changed_rows=look.delta + look.gone,
            index_rows=look.build.rows if look.build else None,
            build_age_s=age_s,
            since_last_s=since_s,
            last_took_s=record.took_s,
            failures=max(self._failed_with(look.build), record.failures, self._fruitless),
        )

    def _failed_with(self, build: Build | None) -> int:
        """Our attempts in a row that failed; whoever published since ended the row."""
        beside, failures = self._failures
        return failures if beside == _id(build) else 0

    def _build(self, look: WorkerObservation, reason: str) -> float:
        _log.info("building: %s", reason)
        self._listener.close()  # unread for so long, it could fill the queue of the whole server
        began = time.monotonic()
        outcome: BuildOutcome = "failed"
        try:
            outcome = self._rebuilt(look)
        except BuildRunning:
            outcome = "busy"
            # Not by the listener, which is made anew and then returns at once.
            self._stop.wait(min(RETRY_S, self._settings.worker_poll_s))
            return 0.0
        except StopRequested:
            outcome = "stopped"
            raise
        except BaseException:
            self._failures = (_id(look.build), self._failed_with(look.build) + 1)
            raise
        finally:
            now = time.monotonic()
            self.metrics.built(outcome, now - began)
            self._ended = self._ended if outcome == "busy" else now
        return 0.0

    def _rebuilt(self, look: WorkerObservation) -> BuildOutcome:
        build = self._indexer.rebuild()
        if build.state != "published":
            self._say(f"Build {build.id} was not published: {build.reason}.")
            return "rejected"
        _log.info("build %d published: %d rows in %.1f s", build.id, build.rows, build.seconds)
        self._failures, self._before = (0, 0), look.delta
        self._warning.clear()
        self.liveness.succeeded()
        return "published"

    def _judge(self, look: WorkerObservation) -> None:
        """Whether the build just published shrank the delta; if not, say who may be to blame."""
        if look.build is None or look.delta <= allowed_changes(look.build.rows, self._rules):
            self._fruitless, self._before = 0, None
            return
        before, self._before = self._before, None
        if before is None or look.delta < before:
            return
        self._fruitless += 1
        self.metrics.fruitless()
        blame = self._observer.blame(look.build)
        self._say(f"Build {look.build.id} left {look.delta} changed rows of {before}. {blame}")

    def _show(self, look: WorkerObservation) -> None:
        shown, build, age_s = self.metrics, look.build, look.record.age_s
        shown.delta_rows.set(look.delta)
        shown.gone_rows.set(look.gone)
        shown.index_rows.set(build.rows if build else 0)
        recall = build.recall_at_10 if build else None
        shown.recall.set(nan if recall is None else recall)
        shown.set_build_age(nan if age_s is None else age_s)

    def _say(self, error: str) -> None:
        self._warning.warn(error)
        self._fail(error)

    def _fail(self, error: str) -> None:
        self.liveness.failed(error)
        self.metrics.failed()


def _id(build: Build | None) -> int:
    return build.id if build else 0


@dataclass(frozen=True, slots=True)
class WorkerObservation:
    """What was seen; without a build, `delta` is every embedding. Counts stop past `max_delta`."""

    build: Build | None
    delta: int
    gone: int
    """Rows of the build that were deleted since, when last counted."""
    record: build_history.BuildHistory


class IndexObserver:
    """Looks at one database; remembers what is dear to count."""

    def __init__(self, engine: Engine, max_delta: int, recount_s: float = inf) -> None:
        self._engine = engine
        self._at_most = max_delta + 1  # past every rule
        self._gone = (0, 0)  # rows gone from the build with this id
        self._recount_s = recount_s
        self._counted = -inf

    def observe(self, *, count_gone: bool) -> WorkerObservation:
        """See everything in one snapshot. Raises NoModel, SchemaMismatch, DatabaseUnavailable.

        Counting what is gone reads the whole table; without `count_gone` it is done once a build,
        and when `recount_s` seconds have passed since.
        """
        with snapshot(self._engine) as connection:
            check_schema(connection)
            model = models.require_active(connection)
            build = next(iter(index_builds.usable(connection, model.id)), None)
            delta = self._delta(connection, model, build)
            gone = self._count_gone(connection, build, delta, count_gone)
            return WorkerObservation(
                build, delta, gone, build_history.build_history(connection, model.id, build)
            )

    def blame(self, build: Build) -> str:
        """Why a build may have left rows out, in words, as far as this user may know."""
        with self._engine.connect() as connection:
            if index_delta.has_future_stamps(connection, build.model_id):
                return "Rows carry stamps of another server's future; run `lookalike migrate`."
            if found := build_history.blocking_transactions(connection):
                return f"Open transactions that write: {'; '.join(map(str, found))}."
            return "No transaction is open now: rows change faster than builds can follow."

    def _delta(self, connection: Connection, model: Model, build: Build | None) -> int:
        if build is None:
            return embeddings.count_up_to(connection, model, at_most=self._at_most)
        return index_delta.delta_rows(connection, build, self._at_most)

    def _count_gone(
        self, connection: Connection, build: Build | None, delta: int, anew: bool
    ) -> int:
        if build is None:
            return 0
        now = time.monotonic()
        if anew or self._gone[0] != build.id or now - self._counted >= self._recount_s:
            self._counted = now
            self._gone = (build.id, index_delta.gone_rows(connection, build, delta))
        return self._gone[1]
