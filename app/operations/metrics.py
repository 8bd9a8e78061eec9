"""Prometheus metrics of searches and of the worker; every label has a small fixed set of values."""

from __future__ import annotations

import os
import time
from math import nan
from typing import Literal, get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from app.search.admission import Admission
from app.types import Plan, ReasonCode, SearchPath

BuildOutcome = Literal["published", "rejected", "failed", "busy", "stopped", "fruitless"]

STAGES = ("wait", "load", "decode", "encode", "search", "details", "total")
SEARCH_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
BUILD_SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
BATCHES = (1, 2, 4, 8, 16, 32)
OTHER = "other"


SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Variable with the folder in which several processes keep their counts, so that any of them tells
those of all; prometheus_client reads it when it is imported."""


class SearchMetrics:
    """Searches of one process, by path and reason code, and how long their stages took."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._searches = Counter(
            "lookalike_searches", "Searches answered.", ["path", "reason"], registry=self.registry
        )
        self._seconds = Histogram(
            "lookalike_search_stage_seconds",
            "Duration of a search's stages, in seconds.",
            ["stage"],
            buckets=SEARCH_SECONDS,
            registry=self.registry,
        )
        self._refused = Counter(
            "lookalike_searches_refused",
            "Searches that waited too long for their turn.",
            registry=self.registry,
        )
        self._batches = Histogram(
            "lookalike_encode_batch_pictures",
            "Pictures that were encoded together.",
            buckets=BATCHES,
            registry=self.registry,
        )
        self._stages = {stage: self._seconds.labels(stage) for stage in (*STAGES, OTHER)}

    def searched(self, plan: Plan) -> None:
        """Count one search."""
        path = plan.path if plan.path in get_args(SearchPath) else OTHER
        code = plan.reason_code if plan.reason_code in get_args(ReasonCode) else OTHER
        self._searches.labels(path, code).inc()
        for stage, ms in plan.ms.items():
            self._stages.get(stage, self._stages[OTHER]).observe(ms / 1000)

    def refused(self) -> None:
        """Count a search that was refused because it waited too long."""
        self._refused.inc()

    def encoded(self, pictures: int) -> None:
        """Count a batch of so many pictures."""
        self._batches.observe(pictures)

    def watch(self, admission: Admission) -> None:
        """Export how many searches run and how many wait, read at each scrape; where several
        processes share their counts, set at each change."""
        running = self._now("lookalike_searches_running", "Searches now.")
        waiting = self._now("lookalike_searches_waiting", "That wait now.")
        if SHARED_FOLDER not in os.environ:
            running.set_function(lambda: admission.running)
            waiting.set_function(lambda: admission.waiting)
            return

        def changed(running_now: int, waiting_now: int) -> None:
            running.set(running_now)
            waiting.set(waiting_now)

        admission.on_change(changed)

    def _now(self, name: str, words: str) -> Gauge:
        return Gauge(name, words, registry=self.registry, multiprocess_mode="livesum")


class ApiMetrics:
    """Requests of the HTTP API, by the pattern of their address and the status of the answer."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "lookalike_api_requests", "Requests answered.", ["route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "lookalike_api_request_seconds", "Duration of requests, in seconds.", ["route"],
            buckets=SEARCH_SECONDS, registry=registry,
        )  # fmt: skip

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request; `status` is 0 or 499 if the client closed the connection first."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)


def exposition(registry: CollectorRegistry) -> tuple[str, bytes]:
    """Content type and body of the metrics for Prometheus; those of all processes that share a
    SHARED_FOLDER."""
    if SHARED_FOLDER in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return CONTENT_TYPE_LATEST, generate_latest(registry)


def forget_process(pid: int, folder: str) -> None:
    """Count nothing as running in a process that ended; what it has counted remains."""
    mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]


class WorkerMetrics:
    """Metrics of one worker: the index as last observed, and the builds it attempted."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.delta_rows = self._gauge("delta_rows", "Embeddings changed since the build, bounded.")
        self.gone_rows = self._gauge("gone_rows", "Rows of the build that were deleted since.")
        self.index_rows = self._gauge("index_rows", "Rows of the build in use.")
        self.recall = self._gauge("build_recall_at_10", "Recall@10 of the build in use, 0 to 1.")
        self.last_build_seconds = self._gauge("last_build_seconds", "Duration of the last build.")
        self.last_error = self._gauge("last_error_timestamp_seconds", "Unix time of the last one.")
        self._seconds = Histogram(
            "lookalike_build_seconds", "Duration of builds, in seconds.",
            buckets=BUILD_SECONDS, registry=self.registry,
        )  # fmt: skip
        self._builds = Counter(
            "lookalike_builds", "Builds tried, by outcome.", ["outcome"], registry=self.registry
        )
        for outcome in get_args(BuildOutcome):
            self._builds.labels(outcome)  # create all labels, so that rates start at 0
        self._born = nan
        self._gauge("build_age_seconds", "Age of the build in use.").set_function(
            lambda: time.monotonic() - self._born
        )

    def set_build_age(self, age_s: float) -> None:
        """Set the age of the build in use, in seconds; NaN without one."""
        self._born = time.monotonic() - age_s

    def built(self, outcome: BuildOutcome, seconds: float) -> None:
        """Count an attempted build and its duration in seconds."""
        self._builds.labels(outcome).inc()
        if outcome in ("published", "rejected"):
            self._seconds.observe(seconds)
            self.last_build_seconds.set(seconds)

    def fruitless(self) -> None:
        """Count a published build that did not reduce the delta."""
        self._builds.labels("fruitless").inc()

    def failed(self) -> None:
        """Record the time of an error."""
        self.last_error.set_to_current_time()

    def _gauge(self, name: str, words: str) -> Gauge:
        return Gauge(f"lookalike_{name}", words, registry=self.registry)
