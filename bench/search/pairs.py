"""How long analytics.near_duplicate_pairs takes on a large catalogue, and which pairs it misses.

    python -m bench.search.pairs [products]

The pairs of some products are compared with those an exact search finds.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from sqlalchemy import Connection, text

from bench.data.catalogue import catalogue

DISTANCE = 0.3
"""Within a cluster of the drawn catalogue most distances are about a third."""
SAMPLE = 200

PAIRS = text("SELECT sku_a, sku_b, complete FROM analytics.near_duplicate_pairs(:distance)")
EXACT = text("SELECT sku FROM analytics.similar_products(:sku, 1000, :distance)")
OUTLIERS = text("SELECT count(*) FROM analytics.outliers(n => 50)")
SIMILAR = text("SELECT count(*) FROM analytics.similar_products('S7', 10)")
GROUPS = text("SELECT count(*) FROM analytics.duplicate_groups")
COVERAGE = text("SELECT count(*) FROM analytics.coverage")


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with catalogue(rows, hnsw=True) as app, app.engine.connect() as connection:
        connection.execute(text("SET statement_timeout = 0"))
        for name, sql in (
            ("similar_products", SIMILAR), ("outliers", OUTLIERS), ("duplicate_groups", GROUPS),
            ("coverage", COVERAGE),
        ):  # fmt: skip
            _, seconds = timed(connection, sql)
            print(f"{name}: {seconds:.2f} s")
        found, seconds = timed(connection, PAIRS, distance=DISTANCE)
        cut = sum(not pair.complete for pair in found)
        print(
            f"{rows} products: {len(found)} pairs within {DISTANCE} in {seconds:.0f} s, {cut} cut"
        )
        print("recall {:.4f} of {} pairs".format(*recall(connection, found, rows)))


def timed(connection: Connection, sql: Any, **values: Any) -> tuple[list[Any], float]:
    began = time.perf_counter()
    found = list(connection.execute(sql, values))
    return found, time.perf_counter() - began


def recall(connection: Connection, found: list[Any], rows: int) -> tuple[float, int]:
    """The share of exact pairs of some products that were found, and how many there are."""
    have = {frozenset((pair.sku_a, pair.sku_b)) for pair in found}
    expected = [
        frozenset((sku, other))
        for sku in (f"S{n}" for n in range(1, rows, rows // SAMPLE))
        for other in connection.execute(EXACT, {"sku": sku, "distance": DISTANCE}).scalars()
    ]
    return sum(pair in have for pair in expected) / max(1, len(expected)), len(expected)


if __name__ == "__main__":
    main()
