"""Filtered searches by selectivity, compared with pgvector's HNSW with iterative scan.

    python -m bench.search.filters --rows 100000

The filter is independent of the vectors, aligned with them (matching rows are near the queries) or
opposed to them (matching rows are far away). recall@10 is relative to exact results. Both systems
run the same queries alternately. The first two searches with a filter are reported separately,
because the list of matching pictures is cached only from the third on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import psycopg
from sqlalchemy import text

from app.bootstrap import App
from app.db.engine import database_url
from app.db.queries.nearest import literal
from app.evaluation.planner_tuning import tune
from app.evaluation.recall_audit import MAX_ROUNDING
from app.types import Filters, Query, Vector
from bench.data.catalogue import catalogue
from bench.data.vectors import generate_vectors

SELECTIVITIES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.001, 0.0001)
K = 10

PGVECTOR_SEARCH = """
SELECT e.vec <=> %(q)s::halfvec FROM embedding_m1 AS e
JOIN product_picture AS pp USING (picture_id) JOIN product AS p ON p.id = pp.product_id
WHERE p.{column} BETWEEN %(low)s AND %(high)s
ORDER BY e.vec::halfvec(512) <=> %(q)s::halfvec(512) LIMIT 10"""

EXACT_SEARCH = """
SELECT e.vec <=> %(q)s::halfvec AS distance FROM embedding_m1 AS e
JOIN product_picture AS pp USING (picture_id) JOIN product AS p ON p.id = pp.product_id
WHERE p.{column} BETWEEN %(low)s AND %(high)s ORDER BY (e.vec <=> %(q)s::halfvec) + 0 LIMIT 10"""


@dataclass
class SystemResults:
    """Results of one system: latencies, recalls, number of short results, search paths."""

    ms: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    recalls: list[float] = field(default_factory=list)
    short: int = 0
    paths: Counter[str] = field(default_factory=Counter)

    def add(self, seconds: float, distances: Sequence[float], exact: Sequence[float]) -> None:
        """Record one search: its duration, and its distances compared with the exact ones."""
        self.ms.append(seconds * 1000)
        hits = sum(each <= exact[-1] + MAX_ROUNDING for each in distances) if exact else 0
        self.recalls.append(hits / len(exact) if exact else 1.0)
        self.short += len(distances) < len(exact)

    def figures(self) -> dict[str, object]:
        return {
            "p50_ms": statistics.median(self.ms),
            "p95_ms": float(np.percentile(self.ms, 95)),
            "first_ms": self.first_ms,
            "recall": statistics.mean(self.recalls),
            "short": self.short,
            "paths": dict(self.paths),
        }


def number_products(app: App, vectors: Sequence[Vector]) -> None:
    """Number the products: randomly in `price`, by distance to the first query in `year`."""
    with app.engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(
            text(
                "UPDATE product SET price = n.chance, year = n.near FROM ("
                " SELECT pp.product_id AS id,"
                "  row_number() OVER (ORDER BY hashint8(pp.product_id)) - 1 AS chance,"
                "  row_number() OVER (ORDER BY (e.vec <=> CAST(:q AS halfvec)) + 0) - 1 AS near"
                " FROM embedding AS e JOIN product_picture AS pp USING (picture_id)"
                " WHERE e.model_id = 1) AS n WHERE n.id = product.id"
            ),
            {"q": literal(vectors[0])},
        )
    with app.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE product"))
        connection.execute(text("RESET statement_timeout"))


def filter_ranges(rows: int, share: float) -> dict[str, tuple[str, int, int]]:
    """Column, minimum and maximum of the filter, by kind of filter."""
    count = max(int(share * rows), 1)
    return {
        "independent": ("price", 0, count - 1),
        "aligned": ("year", 0, count - 1),
        "opposed": ("year", rows - count, rows - 1),
    }


def measure(
    app: App,
    connection: psycopg.Connection,
    value_range: tuple[str, int, int],
    vectors: Sequence[Vector],
) -> tuple[SystemResults, SystemResults]:
    """Results of Lookalike and of pgvector for one filter."""
    lookalike, pgvector = SystemResults(), SystemResults()
    column, low, high = value_range
    filters = Filters(at_least={column: low}, at_most={column: high})
    for vector in (*vectors[:2], *vectors):
        query = Query(vector=vector, model_id=1, k=K, filters=filters)
        parameters = {"q": literal(vector.astype(np.float16).astype(np.float32))}
        parameters |= {"low": low, "high": high}
        rows = connection.execute(EXACT_SEARCH.format(column=column), parameters)
        exact = [row[0] for row in rows]
        began = time.perf_counter()
        result = app.search.search(query)
        seconds = time.perf_counter() - began
        if len(lookalike.first_ms) < 2:
            lookalike.first_ms.append(seconds * 1000)
            continue
        lookalike.add(seconds, [1 - match.similarity for match in result.matches], exact)
        lookalike.paths[result.plan.path] += 1
        began = time.perf_counter()
        rows = connection.execute(PGVECTOR_SEARCH.format(column=column), parameters).fetchall()
        pgvector.add(time.perf_counter() - began, [row[0] for row in rows], exact)
    return lookalike, pgvector


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=20, help="queries per filter")
    options = parser.parse_args()
    results = []
    with catalogue(options.rows, hnsw=True, own=True) as app:
        vectors = generate_vectors(options.queries, seed=99)
        vectors = vectors[:1] + 0.3 * (vectors - vectors[:1])  # queries near the first one
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        number_products(app, vectors)
        app.indexer.rebuild()
        print("planner tuned:", tune(app.engine, app.files, app.settings).crossovers)
        with psycopg.connect(database_url(app.settings), autocommit=True) as connection:
            connection.execute("SET hnsw.iterative_scan = strict_order")
            connection.execute("SET hnsw.ef_search = 100")
            for share in SELECTIVITIES:
                for kind, value_range in filter_ranges(options.rows, share).items():
                    lookalike, pgvector = measure(app, connection, value_range, vectors)
                    row = {"share": share, "filter": kind, "lookalike": lookalike.figures()}
                    results.append(row | {"pgvector": pgvector.figures()})
                    print(
                        f"{share:8.2%} {kind:12}"
                        + "".join(
                            f" | p50 {statistics.median(system.ms):7.2f} ms, recall"
                            f" {statistics.mean(system.recalls):.3f}, short {system.short:2}"
                            for system in (lookalike, pgvector)
                        )
                        + f" | {dict(lookalike.paths)}, first {lookalike.first_ms[0]:.1f}"
                        f" and {lookalike.first_ms[1]:.1f} ms",
                        flush=True,
                    )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
