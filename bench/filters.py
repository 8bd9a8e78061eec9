"""Searches with a filter, at every selectivity, beside pgvector's HNSW with iterative scan.

    python bench/filters.py --rows 100000

The filter is independent of the vectors, aligned with them (what passes lies near the query) or
opposed to them (what passes lies far from it). Recall@10 is against the exact answer. Both sides
answer the same queries in turn.
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
from catalogue import catalogue, drawn
from sqlalchemy import text

from app.bootstrap import App
from app.database import database_url
from app.recall import EPSILON
from app.store.neighbours import literal
from app.tuning import tune
from app.values import Filters, Query, Vector

SHARES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.001, 0.0001)
K = 10

PLAIN = """
SELECT e.vec <=> %(q)s::halfvec FROM embedding_m1 AS e
JOIN product_picture AS pp USING (picture_id) JOIN product AS p ON p.id = pp.product_id
WHERE p.{column} < %(limit)s
ORDER BY e.vec::halfvec(512) <=> %(q)s::halfvec(512) LIMIT 10"""

TRUTH = """
SELECT e.vec <=> %(q)s::halfvec AS distance FROM embedding_m1 AS e
JOIN product_picture AS pp USING (picture_id) JOIN product AS p ON p.id = pp.product_id
WHERE p.{column} < %(limit)s ORDER BY (e.vec <=> %(q)s::halfvec) + 0 LIMIT 10"""


@dataclass
class Side:
    """What one side answered: milliseconds, recalls, rows that were missing, paths."""

    ms: list[float] = field(default_factory=list)
    recalls: list[float] = field(default_factory=list)
    short: int = 0
    paths: Counter[str] = field(default_factory=Counter)

    def note(self, seconds: float, got: Sequence[float], truth: Sequence[float]) -> None:
        self.ms.append(seconds * 1000)
        near = sum(distance <= truth[-1] + EPSILON for distance in got) if truth else 0
        self.recalls.append(near / len(truth) if truth else 1.0)
        self.short += len(got) < len(truth)

    def figures(self) -> dict[str, object]:
        return {
            "p50_ms": statistics.median(self.ms),
            "p95_ms": float(np.percentile(self.ms, 95)),
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


def queries(kind: str, near: Sequence[Vector], opposite: Sequence[Vector]) -> Sequence[Vector]:
    return opposite if kind == "opposed" else near


def measure(
    app: App, plain: psycopg.Connection, column: str, limit: int, asked: Sequence[Vector]
) -> tuple[Side, Side]:
    ours, theirs = Side(), Side()
    filters = Filters(at_most={column: limit - 1})
    for vector in asked:
        values = {"q": literal(vector.astype(np.float16).astype(np.float32)), "limit": limit}
        truth = [row[0] for row in plain.execute(TRUTH.format(column=column), values)]
        query = Query(vector=vector, model_id=1, k=K, filters=filters)
        began = time.perf_counter()
        found = app.search.search(query)
        ours.note(
            time.perf_counter() - began,
            [1 - match.similarity for match in found.matches],
            truth,
        )
        ours.paths[found.plan.path] += 1
        began = time.perf_counter()
        rows = plain.execute(PLAIN.format(column=column), values).fetchall()
        theirs.note(time.perf_counter() - began, [row[0] for row in rows], truth)
    return ours, theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=20)
    words = parser.parse_args()
    found = []
    with catalogue(words.rows, hnsw=True) as app:
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
                limit = max(int(share * words.rows), 1)
                for kind in ("independent", "aligned", "opposed"):
                    column = "price" if kind == "independent" else "year"
                    asked = queries(kind, near, -near)
                    ours, theirs = measure(app, plain, column, limit, asked)
                    row = {"share": share, "filter": kind, "lookalike": ours.figures()}
                    found.append(row | {"pgvector": theirs.figures()})
                    print(
                        f"{share:8.2%} {kind:12}"
                        + "".join(
                            f" | p50 {statistics.median(side.ms):7.2f} ms, recall"
                            f" {statistics.mean(side.recalls):.3f}, short {side.short:2}"
                            for side in (ours, theirs)
                        )
                        + f" | {dict(ours.paths)}",
                        flush=True,
                    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
