"""A small catalogue with an index, changed by hand, whose searches numpy judges."""

from __future__ import annotations

import numpy as np
import psycopg

from app.bootstrap import App
from app.db.engine import snapshot
from app.search.planner import find
from app.search.retrieval import RetrievalRequest, RetrievalResult
from support.shop import add, numbered, vectors
from support.snapshots import differences, read

PRODUCTS = 80
QUERIES = range(1000, 1006)


def search(app: App, seed: int, k: int = 5) -> RetrievalResult:
    """An answer that equals numpy's exact answer in the same snapshot."""
    query = vectors(app, [seed])[0].astype(np.float16).astype(np.float32)
    with snapshot(app.engine) as connection:
        rows = read(connection)
        answer = find(
            RetrievalRequest(app.catalog.model(), query, k, connection=connection),
            app.files,
            app.settings,
        )
    assert differences(rows, query, answer.candidates, k) == [], answer.reason
    return answer


def search_all(app: App) -> RetrievalResult:
    """Check several answers; returns the last one."""
    return [search(app, seed) for seed in QUERIES][-1]


def built(app: App) -> None:
    """A catalogue with an index, answered by FAISS."""
    add(app, numbered(PRODUCTS))
    app.indexer.rebuild()
    assert search(app, QUERIES[0]).path == "faiss"


def literal(app: App, seed: int) -> str:
    return str(vectors(app, [seed])[0].tolist())


def turn(app: App, sql: psycopg.Connection, *pairs: tuple[int, int]) -> None:
    """Give pictures (by position among the ids) the vectors of photos, with a false stamp."""
    for place, seed in pairs:
        sql.execute(
            "UPDATE embedding SET vec = %s::halfvec, changed_in = '3' WHERE picture_id ="
            " (SELECT id FROM picture ORDER BY id OFFSET %s LIMIT 1)",
            [literal(app, seed), place],
        )
