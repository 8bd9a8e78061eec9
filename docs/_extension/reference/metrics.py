"""Metrics for Prometheus, from the registries of the processes."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from app.operations.metrics import ApiMetrics, SearchMetrics, WorkerMetrics
from app.search.admission import Admission
from reference.markdown import code, table

ENDINGS = {"counter": "_total"}


def metrics() -> str:
    """A table of all metrics."""
    search = SearchMetrics()
    search.watch(Admission(1, 1.0, search.refused))
    searching = set(_families(search.registry))
    ApiMetrics(search.registry)
    api = set(_families(search.registry)) - searching
    rows = [
        (code(name), kind, process, meaning)
        for process, families in (
            ("page, API", searching), ("API", api),
            ("worker", set(_families(WorkerMetrics().registry))),
        )
        for name, kind, meaning in sorted(families)
    ]  # fmt: skip
    return table(("metric", "type", "process", "meaning"), rows)


def _families(registry: CollectorRegistry) -> list[tuple[str, str, str]]:
    """Name, type and meaning of each."""
    return [
        (f"{each.name}{ENDINGS.get(each.type, '')}", each.type, each.documentation)
        for each in registry.collect()
    ]
