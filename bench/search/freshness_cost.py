"""Cost of fresh results: a search, compared with plain FAISS plus a fetch of the rows by id.

    python -m bench.search.freshness_cost --rows 100000

Both run the same queries alternately and return the same columns. The ratio is that of the medians.
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
from app.db.queries import index_builds
from app.types import Query, Vector
from bench.data.catalogue import catalogue
from bench.data.vectors import generate_vectors

ROWS_BY_ID = """
SELECT p.id, p.sku, p.title, p.brand, p.category, p.colour, p.year, p.price, p.currency,
    p.attributes, pp.uri, pic.thumbnail
FROM product_picture AS pp JOIN product AS p ON p.id = pp.product_id
JOIN picture AS pic ON pic.id = pp.picture_id
WHERE pp.picture_id = ANY(%s)"""


def plain_faiss(app: App, connection: psycopg.Connection) -> Callable[[Vector], list[int]]:
    """FAISS, then the rows by id: fast, but wrong as soon as the catalogue changes."""
    with app.engine.connect() as app_connection:
        build = index_builds.usable(app_connection, app.catalog.model().id)[0]
    index = app.files.open(build)

    def search(vector: Vector) -> list[int]:
        _, ids = index.search(vector[np.newaxis], 10)
        rows = connection.execute(ROWS_BY_ID, [ids[0].tolist()], prepare=True).fetchall()
        return [row[0] for row in rows]

    return search


def lookalike_search(app: App) -> Callable[[Vector], list[int]]:
    """A search of the service for the ten nearest products."""
    model = app.catalog.model().id

    def search(vector: Vector) -> list[int]:
        result = app.search.search(Query(vector=vector, model_id=model, k=10))
        assert result.plan.path == "faiss", result.plan
        return [match.product_id for match in result.matches]

    return search


def elapsed_ms(search: Callable[[Vector], list[int]], vector: Vector) -> float:
    began = time.perf_counter()
    search(vector)
    return (time.perf_counter() - began) * 1000


def measure(app: App, connection: psycopg.Connection, queries: int) -> dict[str, float]:
    """p50 and p95 of both in milliseconds, and the ratio of the medians."""
    searches = {
        "plain_faiss": plain_faiss(app, connection),
        "lookalike": lookalike_search(app),
    }
    vectors = generate_vectors(queries + 20, seed=99)
    for vector in vectors[:20]:
        for search in searches.values():
            search(vector)
    times: dict[str, list[float]] = {name: [] for name in searches}
    for vector in vectors[20:]:
        for name, search in searches.items():
            times[name].append(elapsed_ms(search, vector))
    figures = {f"{name}_p50_ms": float(np.median(ms)) for name, ms in times.items()}
    figures |= {f"{name}_p95_ms": float(np.percentile(ms, 95)) for name, ms in times.items()}
    return figures | {"ratio": figures["lookalike_p50_ms"] / figures["plain_faiss_p50_ms"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--delta", type=int, default=1000, help="embeddings to change")
    options = parser.parse_args()
    with catalogue(options.rows) as app:
        app.indexer.rebuild()
        with psycopg.connect(database_url(app.settings), autocommit=True) as connection:
            results = {"empty delta": measure(app, connection, options.queries)}
            with app.engine.begin() as writer:
                writer.execute(
                    text("UPDATE embedding SET vec = vec WHERE picture_id <= :rows"),
                    {"rows": options.delta},
                )
            results[f"{options.delta} rows in the delta"] = measure(
                app, connection, options.queries
            )
    for name, figures in results.items():
        line = ", ".join(f"{key} {value:.2f}" for key, value in figures.items())
        print(f"{options.rows} rows, {name}: {line}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
