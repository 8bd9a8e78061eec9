"""What the horizon costs: a fresh search beside a bare FAISS search that fetches its rows by id.

    python -m bench.search.freshness_cost --rows 100000

Both answer the same queries in turn and bring the same columns; the ratio is of the medians.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import psycopg
from sqlalchemy import text

from app.bootstrap import App
from app.db.engine import database_url
from app.types import Query, Vector
from bench.data.catalogue import catalogue, drawn

ROWS_BY_ID = """
SELECT p.id, p.sku, p.title, p.brand, p.category, p.colour, p.year, p.price, p.currency,
    p.attributes, pp.uri, pic.thumbnail
FROM product_picture AS pp JOIN product AS p ON p.id = pp.product_id
JOIN picture AS pic ON pic.id = pp.picture_id
WHERE pp.picture_id = ANY(%s)"""


def bare(app: App, connection: psycopg.Connection) -> Callable[[Vector], list[int]]:
    """FAISS, then the rows of what it found: fast, and wrong as soon as anything changes."""
    from app.db.queries import index_builds

    with app.engine.connect() as own:
        build = index_builds.usable(own, app.catalog.model().id)[0]
    index = app.files.open(build)

    def ask(vector: Vector) -> list[int]:
        _, ids = index.search(vector[np.newaxis], 10)
        rows = connection.execute(ROWS_BY_ID, [ids[0].tolist()], prepare=True).fetchall()
        return [row[0] for row in rows]

    return ask


def fresh(app: App) -> Callable[[Vector], list[int]]:
    model = app.catalog.model().id

    def ask(vector: Vector) -> list[int]:
        found = app.search.search(Query(vector=vector, model_id=model, k=10))
        assert found.plan.path == "faiss", found.plan
        return [match.product_id for match in found.matches]

    return ask


def timed(ask: Callable[[Vector], list[int]], vector: Vector) -> float:
    began = time.perf_counter()
    ask(vector)
    return (time.perf_counter() - began) * 1000


def measure(app: App, connection: psycopg.Connection, queries: int) -> dict[str, float]:
    """Milliseconds of both, measured in turn, and their ratio."""
    asks = {"bare": bare(app, connection), "fresh": fresh(app)}
    vectors = drawn(queries + 20, seed=99)
    for vector in vectors[:20]:
        for ask in asks.values():
            ask(vector)
    times: dict[str, list[float]] = {name: [] for name in asks}
    for vector in vectors[20:]:
        for name, ask in asks.items():
            times[name].append(timed(ask, vector))
    figures = {f"{name}_p50_ms": float(np.median(found)) for name, found in times.items()}
    figures |= {f"{name}_p95_ms": float(np.percentile(found, 95)) for name, found in times.items()}
    return figures | {"ratio": figures["fresh_p50_ms"] / figures["bare_p50_ms"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--delta", type=int, default=1000)
    words = parser.parse_args()
    with catalogue(words.rows) as app:
        app.indexer.rebuild()
        with psycopg.connect(database_url(app.settings), autocommit=True) as connection:
            found = {"empty delta": measure(app, connection, words.queries)}
            with app.engine.begin() as writing:
                writing.execute(
                    text("UPDATE embedding SET vec = vec WHERE picture_id <= :rows"),
                    {"rows": words.delta},
                )
            found[f"{words.delta} in the delta"] = measure(app, connection, words.queries)
    for name, figures in found.items():
        shown = ", ".join(f"{key} {value:.2f}" for key, value in figures.items())
        print(f"{words.rows} rows, {name}: {shown}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
