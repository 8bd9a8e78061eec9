"""Duration of the analytics functions on a large catalogue, and recall of near_duplicate_pairs.

    python -m bench.search.pairs [PRODUCTS]

Recall is measured against an exact search for a sample of products.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from sqlalchemy import Connection, text

from bench.data.catalogue import catalogue

DISTANCE = 0.3
"""Most distances within a cluster of the generated catalogue are about one third."""
SAMPLED_PRODUCTS = 200

PAIRS = text("SELECT sku_a, sku_b, complete FROM analytics.near_duplicate_pairs(:distance)")
EXACT = text("SELECT sku FROM analytics.similar_products(:sku, 1000, :distance)")
OUTLIERS = text("SELECT count(*) FROM analytics.outliers(n => 50)")
SIMILAR = text("SELECT count(*) FROM analytics.similar_products('S7', 10)")
GROUPS = text("SELECT count(*) FROM analytics.duplicate_groups")
COVERAGE = text("SELECT count(*) FROM analytics.coverage")


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with catalogue(rows, pgvector=True) as app, app.engine.connect() as connection:
        connection.execute(text("SET statement_timeout = 0"))
        for name, sql in (
            ("similar_products", SIMILAR), ("outliers", OUTLIERS), ("duplicate_groups", GROUPS),
            ("coverage", COVERAGE),
        ):  # fmt: skip
            _, seconds = run_timed(connection, sql)
            print(f"{name}: {seconds:.2f} s")
        pairs, seconds = run_timed(connection, PAIRS, distance=DISTANCE)
        incomplete = sum(not pair.complete for pair in pairs)
        print(
            f"{rows} products: {len(pairs)} pairs within {DISTANCE} in {seconds:.0f} s, "
            f"{incomplete} incomplete"
        )
        print("recall {:.4f} of {} pairs".format(*pair_recall(connection, pairs, rows)))


def run_timed(connection: Connection, sql: Any, **values: Any) -> tuple[list[Any], float]:
    """The rows of a statement, and its duration in seconds."""
    began = time.perf_counter()
    rows = list(connection.execute(sql, values))
    return rows, time.perf_counter() - began


def pair_recall(connection: Connection, pairs: list[Any], rows: int) -> tuple[float, int]:
    """Share of the exact pairs of sampled products in `pairs`, and the number of exact pairs."""
    returned = {frozenset((pair.sku_a, pair.sku_b)) for pair in pairs}
    expected = [
        frozenset((sku, other))
        for sku in (f"S{n}" for n in range(1, rows, rows // SAMPLED_PRODUCTS))
        for other in connection.execute(EXACT, {"sku": sku, "distance": DISTANCE}).scalars()
    ]
    return sum(pair in returned for pair in expected) / max(1, len(expected)), len(expected)


if __name__ == "__main__":
    main()
