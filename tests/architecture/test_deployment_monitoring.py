"""The configuration of Prometheus and Grafana, checked against the metrics that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry

from app.operations.metrics import ApiMetrics, SearchMetrics, WorkerMetrics
from app.search.admission import Admission
from support.paths import REPO

FOLDER = REPO / "deploy" / "monitoring"
NAME = re.compile(r"\b(?:lookalike_\w+|up)\b(?:\{([^}]*)\})?")
GROUPED = re.compile(r"by \(([^)]*)\)")
OF_PROMETHEUS = {"job", "instance", "le"}


@pytest.fixture(scope="module")
def metrics() -> dict[str, set[str]]:
    """The labels of every series that a process of Lookalike serves, by the name of the series."""
    search = SearchMetrics()
    search.watch(Admission(1, 1.0, search.refused))
    ApiMetrics(search.registry)
    known = {"up": set[str]()}
    for registry in (search.registry, WorkerMetrics().registry):
        known |= dict(_series(registry))
    return known


def _series(registry: CollectorRegistry) -> Iterator[tuple[str, set[str]]]:
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}
    for collector in list(registry._collector_to_names):
        labels = set(getattr(collector, "_labelnames", ()))
        for family in collector.describe() if hasattr(collector, "describe") else ():
            for ending in endings[family.type]:
                yield f"{family.name}{ending}", labels


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    text = (FOLDER / "grafana/dashboards/lookalike.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


@pytest.fixture(scope="module")
def expressions(dashboard: dict[str, Any]) -> list[str]:
    """Every query of the dashboard and of the alerts."""
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return queries + [rule["expr"] for group in rules for rule in group["rules"]]


def test_every_query_is_of_metrics_and_labels_that_exist(
    metrics: dict[str, set[str]], expressions: list[str]
) -> None:
    for expression in expressions:
        used = list(NAME.finditer(expression))
        assert used, expression
        known = set(OF_PROMETHEUS)
        for match in used:
            name = match[0].partition("{")[0]
            assert name in metrics, f"{name} in {expression}"
            known |= metrics[name]
            assert set(re.findall(r"(\w+)\s*[=!]", match[1] or "")) <= known, expression
        for group in GROUPED.findall(expression):
            assert {label.strip() for label in group.split(",")} <= known, expression


def test_prometheus_can_read_every_query(expressions: list[str]) -> None:
    for expression in expressions:
        # Grafana's own variables, with what it would put in.
        query = expression.replace("$__rate_interval", "1m").replace("$__range", "1h")
        promql_parser.parse(query)
    for wrong in ("sum(rate(up[1m])", "rate(up)", "sum by (job (up)"):
        with pytest.raises(ValueError):
            promql_parser.parse(wrong)


def test_the_dashboard_shows_every_metric(
    metrics: dict[str, set[str]], dashboard: dict[str, Any]
) -> None:
    shown = json.dumps(dashboard["panels"])
    families = {re.sub("_(total|bucket|sum|count)$", "", name) for name in metrics}
    assert [name for name in sorted(families) if name not in shown] == []


def test_panels_have_ids_of_their_own_and_do_not_overlap(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) < 24


def test_the_dashboard_asks_the_data_source_that_is_provided(dashboard: dict[str, Any]) -> None:
    text = (FOLDER / "grafana/provisioning/datasources/prometheus.yml").read_text(encoding="utf-8")
    (source,) = yaml.safe_load(text)["datasources"]
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {source["uid"]}


def test_prometheus_reads_every_process_on_the_port_of_its_metrics() -> None:
    from app.config import Settings

    jobs = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    targets = {
        target for job in jobs for each in job["static_configs"] for target in each["targets"]
    }
    services = yaml.safe_load((REPO / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    ports = {
        "worker": Settings.model_fields["worker_metrics_port"].default,
        "page": Settings.model_fields["page_metrics_port"].default,
        "api": services["api"]["command"][-1],
    }
    assert targets == {f"{name}:{port}" for name, port in ports.items()}
    (key,) = [job["authorization"]["credentials_file"] for job in jobs if "authorization" in job]
    assert key == f"/run/secrets/{services['prometheus']['secrets'][0]}"
