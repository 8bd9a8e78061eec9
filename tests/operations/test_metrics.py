"""Metrics and health over HTTP; every label has few values."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import get_args
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as some
from prometheus_client.parser import text_string_to_metric_families

from app.bootstrap import App
from app.config import Settings
from app.errors import BadInput, LookalikeError
from app.operations.health import HealthCheck, HealthStatus, Liveness
from app.operations.metrics import (
    OTHER,
    STAGES,
    SearchMetrics,
    WorkerMetrics,
)
from app.operations.metrics_server import MetricsServer
from app.search.filters import parse
from app.types import Plan, Query, ReasonCode, SearchPath
from app.ui.shared import serve_metrics
from support.colours import photo
from support.shop import add, numbered


@pytest.fixture
def server(app: App) -> Iterator[MetricsServer]:
    status = Liveness(app.engine).status
    with MetricsServer("127.0.0.1", 0, app.metrics.registry, status) as server:
        yield server


def fetch(address: str) -> tuple[int, str, str]:
    """Status, content type, body."""
    try:
        with urlopen(address, timeout=300) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except HTTPError as exc:
        with exc:
            return exc.code, exc.headers["Content-Type"], exc.read().decode()


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Every sample by name and label values."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_searches_are_counted_by_path_and_reason(app: App, server: MetricsServer) -> None:
    add(app, numbered(5), brand="Acme")
    app.search.search(Query(picture=photo(1)))
    app.indexer.rebuild()
    for _ in range(2):
        app.search.search(Query(picture=photo(1), k=3))
    app.search.search(Query(sku="P0001", filters=parse(["brand=Acme"])))
    status, kind, body = fetch(f"{server.address}/metrics")
    values = samples(body)
    assert (status, kind.split(";")[0]) == (200, "text/plain")
    assert {key[1:]: n for key, n in values.items() if key[0] == "lookalike_searches_total"} == {
        ("exact", "no_build"): 1,
        ("faiss", "build"): 2,
        ("exact", "filter"): 1,
    }
    assert values["lookalike_search_stage_seconds_count", "total"] == 4
    assert values["lookalike_search_stage_seconds_count", "encode"] == 3
    assert 0 < values["lookalike_search_stage_seconds_sum", "total"] < 60


def test_a_search_that_is_refused_is_not_counted(app: App) -> None:
    with pytest.raises(BadInput):
        app.search.search(Query(k=0, sku="x"))
    assert app.metrics.registry.get_sample_value("lookalike_searches_total") is None


def test_every_plan_has_the_reason_code_of_its_reason(
    app: App, settings: Settings, sql: psycopg.Connection
) -> None:
    """Real searches cause each reason code, with its text."""
    add(app, numbered(60))
    plans = [app.search.search(Query(sku="P0001")).plan]
    build = app.indexer.rebuild()
    plans.append(app.search.search(Query(sku="P0001")).plan)
    sql.execute("UPDATE embedding SET vec = vec WHERE picture_id < 5")
    with App(settings.model_copy(update={"max_delta_rows": 1})) as strict:
        plans.append(strict.search.search(Query(sku="P0001")).plan)
    sql.execute("DELETE FROM index_chunk")
    app.files.path(build.sha256).unlink()
    with App(settings) as other:
        plans.append(other.search.search(Query(sku="P0001")).plan)
        plans.append(other.search.search(Query(sku="P0001", filters=parse(["brand=x"]))).plan)
        plans.append(other.search.search(Query(words="P0001", words_by="catalogue")).plan)
    sentences = {
        "no_build": "no index has been built yet",
        "build": "build 1 with 0 embeddings changed since",
        "large_delta": "more than 1 embeddings changed since build 1",
        "file": f"build 1: index file {build.sha256}.faiss",
        "filter": "the filter leaves few products, all compared",
        "words": "the words of the catalogue",
    }
    assert [plan.reason_code for plan in plans] == list(sentences)
    for plan, sentence in zip(plans, sentences.values(), strict=True):
        assert plan.reason.startswith(sentence)


plans = some.builds(
    Plan,
    path=some.text(),
    reason=some.text(),
    reason_code=some.sampled_from(get_args(ReasonCode)) | some.text(),
    model=some.text(),
    ms=some.dictionaries(some.text(), some.floats(0, 1e6)),
)


@given(some.lists(plans, max_size=20))
def test_labels_have_few_values_for_any_search(plans: list[Plan]) -> None:
    metrics = SearchMetrics()
    for plan in plans:
        metrics.searched(plan)
    allowed = {
        "path": {*get_args(SearchPath), OTHER},
        "reason": {*get_args(ReasonCode), OTHER},
        "stage": {*STAGES, OTHER},
    }
    for family in metrics.registry.collect():
        for sample in family.samples:
            for label, value in sample.labels.items():
                assert label == "le" or value in allowed[label]


def test_a_worker_counts_every_outcome_from_the_start() -> None:
    metrics = WorkerMetrics()
    metrics.built("published", 2.5)
    metrics.set_build_age(7.0)
    read = metrics.registry.get_sample_value
    counted = {
        outcome: read("lookalike_builds_total", {"outcome": outcome})
        for outcome in ("published", "rejected", "failed", "busy", "stopped", "fruitless")
    }
    assert counted.pop("published") == 1 and set(counted.values()) == {0}
    assert read("lookalike_build_seconds_sum") == read("lookalike_last_build_seconds") == 2.5
    assert (read("lookalike_build_age_seconds") or 0) == pytest.approx(7, abs=5)


def test_health_is_reported_by_the_http_status_and_in_json(app: App, server: MetricsServer) -> None:
    status, kind, body = fetch(f"{server.address}/healthz")
    assert (status, kind) == (200, "application/json")
    assert json.loads(body) == {
        "healthy": True,
        "database": {"value": "reachable", "ok": True, "advice": None},
    }


def test_a_database_that_cannot_be_reached_is_503(settings: Settings) -> None:
    nowhere = settings.model_copy(update={"database_url": "postgresql://127.0.0.1:1/nothing"})
    with (
        App(nowhere) as app,
        MetricsServer("127.0.0.1", 0, app.metrics.registry, Liveness(app.engine).status) as server,
    ):
        status, _, body = fetch(f"{server.address}/healthz")
        assert status == 503
        assert "cannot be reached" in json.loads(body)["database"]["advice"]
        assert fetch(f"{server.address}/metrics")[0] == 200


def test_a_process_without_recent_success_is_unhealthy(app: App) -> None:
    liveness = Liveness(app.engine, stale_s=0.0)
    liveness.failed("the disk is full")
    report = liveness.status()
    assert not report.healthy
    assert "the disk is full" in (report.checks[1].advice or "")
    long = Liveness(app.engine, stale_s=60.0)
    assert long.status().healthy


def test_the_database_check_is_reused_between_requests(app: App) -> None:
    from sqlalchemy import event

    statements: list[str] = []
    event.listen(app.engine, "before_cursor_execute", lambda *words: statements.append(words[2]))
    liveness = Liveness(app.engine)
    for _ in range(20):
        liveness.status()
    assert statements == ["SELECT 1"]


def test_other_paths_and_methods_are_refused(server: MetricsServer) -> None:
    assert fetch(f"{server.address}/")[0] == 404
    assert fetch(f"{server.address}/healthz?verbose=1")[0] == 200
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(f"{server.address}/metrics", method="POST"), timeout=300)
    refused.value.close()
    assert refused.value.code == 501


def test_the_server_listens_on_localhost_by_default() -> None:
    assert Settings().metrics_host == "127.0.0.1"


def test_a_taken_port_is_an_error_with_advice() -> None:
    ok = HealthStatus((HealthCheck("x", 1),))
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(LookalikeError, match="Choose another port"),
    ):
        MetricsServer("127.0.0.1", taken.getsockname()[1], SearchMetrics().registry, lambda: ok)


# The page


def test_a_page_serves_its_metrics_or_runs_without_them(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    free = app.settings.model_copy(update={"page_metrics_port": 0})
    with App(free) as other:
        server = serve_metrics(other)
        assert server is not None
        with server:
            assert fetch(f"{server.address}/healthz")[0] == 200
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with App(free.model_copy(update={"page_metrics_port": port})) as other:
            assert serve_metrics(other) is None
    assert f"port {port}" in caplog.text
