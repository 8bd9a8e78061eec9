"""Searches with a filter, at every selectivity, beside pgvector's HNSW with iterative scan.

    python -m bench.search.filters --rows 100000

The filter is independent of the vectors, aligned with them (what passes lies near the queries) or
opposed to them (what passes lies far from them). Recall@10 is against the exact answer. Both sides
answer the same queries in turn. The first two searches with a filter are shown apart: before the
third, what passes is not known yet.
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
from bench.data.catalogue import catalogue, drawn

SHARES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.001, 0.0001)
K = 10

PLAIN = """
SELECT e.vec <=> %(q)s::halfvec FROM embedding_m1 AS e
JOIN product_picture AS pp USING (picture_id) JOIN product AS p ON p.id = pp.product_id
WHERE p.{column} BETWEEN %(low)s AND %(high)s
ORDER BY e.vec::halfvec(512) <=> %(q)s::halfvec(512) LIMIT 10"""

TRUTH = """
SELECT e.vec <=> %(q)s::halfvec AS distance FROM embedding_m1 AS e
JOIN product_picture AS pp USING (picture_id) JOIN product AS p ON p.id = pp.product_id
WHERE p.{column} BETWEEN %(low)s AND %(high)s ORDER BY (e.vec <=> %(q)s::halfvec) + 0 LIMIT 10"""


@dataclass
class Side:
    """What one side answered: milliseconds, recalls, rows that were missing, paths."""

    ms: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    recalls: list[float] = field(default_factory=list)
    short: int = 0
    paths: Counter[str] = field(default_factory=Counter)

    def note(self, seconds: float, got: Sequence[float], truth: Sequence[float]) -> None:
        self.ms.append(seconds * 1000)
        near = sum(distance <= truth[-1] + MAX_ROUNDING for distance in got) if truth else 0
        self.recalls.append(near / len(truth) if truth else 1.0)
        self.short += len(got) < len(truth)

    def figures(self) -> dict[str, object]:
        return {
            "p50_ms": statistics.median(self.ms),
            "p95_ms": float(np.percentile(self.ms, 95)),
            "first_ms": self.first_ms,
            "recall": statistics.mean(self.recalls),
            "short": self.short,
            "paths": dict(self.paths),
        }


def rank(app: App, vectors: Sequence[Vector]) -> None:
    """Number the products: by chance in `price`, by similarity to the first query in `year`."""
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


def ranges(rows: int, share: float) -> dict[str, tuple[str, int, int]]:
    """Column, lowest and highest value of what passes, by the kind of filter."""
    count = max(int(share * rows), 1)
    return {
        "independent": ("price", 0, count - 1),
        "aligned": ("year", 0, count - 1),
        "opposed": ("year", rows - count, rows - 1),
    }


def measure(
    app: App, plain: psycopg.Connection, passing: tuple[str, int, int], asked: Sequence[Vector]
) -> tuple[Side, Side]:
    ours, theirs = Side(), Side()
    column, low, high = passing
    filters = Filters(at_least={column: low}, at_most={column: high})
    for vector in (*asked[:2], *asked):
        query = Query(vector=vector, model_id=1, k=K, filters=filters)
        bound = {"q": literal(vector.astype(np.float16).astype(np.float32))}
        bound |= {"low": low, "high": high}
        truth = [row[0] for row in plain.execute(TRUTH.format(column=column), bound)]
        began = time.perf_counter()
        found = app.search.search(query)
        took = time.perf_counter() - began
        if len(ours.first_ms) < 2:
            ours.first_ms.append(took * 1000)
            continue
        ours.note(took, [1 - match.similarity for match in found.matches], truth)
        ours.paths[found.plan.path] += 1
        began = time.perf_counter()
        rows = plain.execute(PLAIN.format(column=column), bound).fetchall()
        theirs.note(time.perf_counter() - began, [row[0] for row in rows], truth)
    return ours, theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=20)
    words = parser.parse_args()
    found = []
    with catalogue(words.rows, hnsw=True, own=True) as app:
        near = drawn(words.queries, seed=99)
        near = near[:1] + 0.3 * (near - near[:1])
        near /= np.linalg.norm(near, axis=1, keepdims=True)
        rank(app, near)
        app.indexer.rebuild()
        print("tuned:", tune(app.engine, app.files, app.settings).crossovers)
        with psycopg.connect(database_url(app.settings), autocommit=True) as plain:
            plain.execute("SET hnsw.iterative_scan = strict_order")
            plain.execute("SET hnsw.ef_search = 100")
            for share in SHARES:
                for kind, passing in ranges(words.rows, share).items():
                    ours, theirs = measure(app, plain, passing, near)
                    row = {"share": share, "filter": kind, "lookalike": ours.figures()}
                    found.append(row | {"pgvector": theirs.figures()})
                    print(
                        f"{share:8.2%} {kind:12}"
                        + "".join(
                            f" | p50 {statistics.median(side.ms):7.2f} ms, recall"
                            f" {statistics.mean(side.recalls):.3f}, short {side.short:2}"
                            for side in (ours, theirs)
                        )
                        + f" | {dict(ours.paths)}, first {ours.first_ms[0]:.1f}"
                        f" and {ours.first_ms[1]:.1f} ms",
                        flush=True,
                    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
