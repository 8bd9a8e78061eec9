"""Measures the crossovers of the planner: where one path of a filtered search gets cheaper.

The filters are ranges of product ids, the cheapest filter for PostgreSQL.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from app.config import Settings
from app.db.engine import check_schema, snapshot
from app.db.queries import embeddings, models, products, query_samples
from app.db.queries.nearest import FilterClause
from app.errors import BuildRefused
from app.index.file_store import IndexFiles
from app.search import planner
from app.search.index_swap import OpenBuild, open_build
from app.search.planner import PlannedSearch
from app.search.retrieval import Reason, RetrievalRequest
from app.types import Crossovers, Vectors
from app.vectors import round_to_float16

SIZES = (50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)
"""Numbers of products that pass the filters that are measured."""

QUERIES = 9
K = 10


@dataclass(frozen=True, slots=True)
class TuningResult:
    """The crossovers, and the measured milliseconds by number of products that pass and by path."""

    crossovers: Crossovers
    figures: dict[int, dict[str, float]]

    def as_dict(self) -> dict[str, Any]:
        """As JSON: the crossovers and the measurements by name."""
        return {
            "exact_pictures": self.crossovers.exact_pictures,
            "deep_share": self.crossovers.deep_share,
            "ms": self.figures,
        }


def tune(engine: Engine, files: IndexFiles, settings: Settings) -> TuningResult:
    """Measure the paths and store the crossovers; takes some seconds.

    Raises NoModel, and BuildRefused where no index is published.
    """
    with snapshot(engine) as connection:
        check_schema(connection)
        model = models.require_active(connection)
        queries = embeddings.random_vectors(connection, model, QUERIES)
        ids = products.all_ids(connection)
        if len(ids) <= SIZES[0] or not len(queries):
            raise BuildRefused(
                f"There is too little to measure: more than {SIZES[0]} products with pictures are "
                "needed. Until then the defaults hold."
            )
        probe = RetrievalRequest(model, np.ones(model.dim, np.float32), K, connection=connection)
        opened = open_build(probe, files)
        if isinstance(opened, Reason):
            raise BuildRefused(f"There is no index to measure ({opened.text}); build one first.")
        shown = products.count_picture_links(connection) / len(ids)
        figures = {
            size: _measure(probe, opened, queries, size, ids, settings)
            for size in SIZES
            if size < len(ids)
        }
    result = TuningResult(crossovers(figures, len(ids), shown), figures)
    with engine.begin() as connection:
        query_samples.save_crossovers(connection, model.id, result.crossovers, result.as_dict())
    return result


def crossovers(figures: dict[int, dict[str, float]], total: int, shown: float = 1.0) -> Crossovers:
    """Where the paths cross, from milliseconds by number of products that pass (of `total`).

    A product has `shown` pictures on average. The exact comparison ("exact") is used up to the
    largest size at which it, and at all smaller sizes, is the fastest. Filtering afterwards
    ("deep") is used from the smallest size at which it, and at all larger sizes, is faster than
    searching among the pictures that pass ("among").
    """
    exact, deep = min(figures, default=1), total
    for size in sorted(figures):
        if figures[size]["exact"] > min(figures[size].values()):
            break
        exact = size
    for size in sorted(figures, reverse=True):
        if figures[size]["deep"] > figures[size]["among"]:
            break
        deep = size
    return Crossovers(max(round(exact * shown), 1), min(max(deep / max(total, 1), 1e-4), 1.0))


def _measure(
    probe: RetrievalRequest,
    opened: OpenBuild,
    queries: Vectors,
    size: int,
    ids: NDArray[np.int64],
    settings: Settings,
) -> dict[str, float]:
    """Median milliseconds of each path for filters of one size."""
    random = np.random.default_rng(size)
    times: dict[str, list[float]] = {"exact": [], "among": [], "deep": []}
    for vector in round_to_float16(queries):
        first = int(random.integers(0, len(ids) - size))
        filter_clause = FilterClause(
            "p.id BETWEEN %(filter_0)s AND %(filter_1)s",
            {"filter_0": int(ids[first]), "filter_1": int(ids[first + size - 1])},
        )
        request = replace(probe, vector=vector)
        search = PlannedSearch(request, filter_clause, settings)
        paths: dict[str, Callable[[], object]] = {
            "exact": partial(planner.compare_all, search),
            "among": partial(planner.by_faiss, search, opened, planner.selector_rounds(search)),
            "deep": partial(
                planner.by_faiss, search, opened, planner.deep_rounds(request, size / len(ids))
            ),
        }
        for name, path in paths.items():
            began = time.perf_counter()
            path()
            times[name].append((time.perf_counter() - began) * 1000)
    return {name: round(median(taken), 3) for name, taken in times.items()}
