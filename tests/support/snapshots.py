"""What a snapshot holds, read and ranked by numpy alone: the judge of every search path."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from app.bootstrap import App
from app.db.queries import index_builds, single_statement
from app.db.queries.nearest import Candidates, is_complete
from app.errors import IndexUnreadable
from app.search.retrieval import RetrievalResult, build_result
from app.types import Model, Vector

EQUAL = 2e-6
"""Similarities nearer than this may come in either order: float32 knows no better."""


@dataclass(frozen=True)
class Rows:
    """The pictures that products show, in one snapshot: product ids, picture ids, vectors."""

    products: NDArray[np.int64]
    pictures: NDArray[np.int64]
    vectors: NDArray[np.float64]

    def similarities(self, query: NDArray[np.float32]) -> dict[int, float]:
        """The best similarity of each product; equal vectors have equal ones to the last bit."""
        wide = query.astype(np.float64)
        lengths = np.linalg.norm(self.vectors, axis=1) * np.linalg.norm(wide)
        # Summed row by row: a product of matrices adds up equal rows in different orders.
        cosine = (self.vectors * wide).sum(axis=1) / lengths
        best: dict[int, float] = {}
        for product, similarity in zip(self.products.tolist(), cosine.tolist(), strict=True):
            best[product] = max(similarity, best.get(product, -2.0))
        return best


def read(connection: Connection, model_id: int = 1) -> Rows:
    """Every embedding with the products that show it, as this transaction sees them."""
    rows = connection.execute(
        text(
            "SELECT pp.product_id, e.picture_id, e.vec::text FROM embedding AS e"
            " JOIN product_picture AS pp USING (picture_id) WHERE e.model_id = :model"
        ),
        {"model": model_id},
    ).all()
    return Rows(
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([json.loads(row[2]) for row in rows], dtype=np.float64),
    )


@contextmanager
def quick_snapshot(app: App) -> Iterator[Connection]:
    """A snapshot on a connection of those that answer in one statement."""
    with app.fast_engine.connect() as connection:
        connection.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        try:
            yield connection
        finally:
            connection.exec_driver_sql("ROLLBACK")


def at_once_with_newest(
    connection: Connection, app: App, model: Model, query: Vector, k: int
) -> RetrievalResult | None:
    """What one statement answers in a quick snapshot with the newest build of all, whether the
    snapshot sees it or not; None where it leaves the answer to others."""
    with app.engine.connect() as apart:
        newest = next(iter(index_builds.usable(apart, model.id)), None)
    if newest is None:
        return None
    with suppress(IndexUnreadable):  # retired a moment ago
        nominees = app.files.open(newest).nominate(query / np.linalg.norm(query), k + 16, k)
        raw = connection.connection.driver_connection
        found = single_statement.search(
            raw, single_statement.StatementRequest(model, newest, query, k + 16, k),
            nominees.ids, nominees.seen_to,
            cluster=single_statement.cluster(raw), max_delta_rows=app.settings.max_delta_rows,
        )  # fmt: skip
        if found is not None and is_complete(found.candidates, k):
            return build_result(found.candidates, newest, found.delta_rows)
    return None


def differences(rows: Rows, query: NDArray[np.float32], found: Candidates, k: int) -> list[str]:
    """What is wrong with the first k of a search; nothing if ids, order and similarity agree."""
    if not len(rows.products):
        return [] if not found.hits else ["something was found where there is nothing"]
    truth = rows.similarities(query)
    best = sorted(truth.values(), reverse=True)[:k]
    wrong = []
    if len(found.hits) != len(best):
        wrong.append(f"{len(found.hits)} came back instead of {len(best)}")
    for place, (hit, similarity) in enumerate(zip(found.hits, best, strict=False)):
        if hit.product_id not in truth:
            wrong.append(f"{place}: product {hit.product_id} is not in the snapshot")
        elif abs(hit.similarity - truth[hit.product_id]) > EQUAL:
            wrong.append(f"{place}: product {hit.product_id} has another similarity")
        elif abs(hit.similarity - similarity) > EQUAL:
            wrong.append(f"{place}: {hit.similarity} stands where {similarity} belongs")
    if len({hit.product_id for hit in found.hits}) != len(found.hits):
        wrong.append("a product came twice")
    return wrong + _out_of_order(truth, found)


def _out_of_order(truth: dict[int, float], found: Candidates) -> list[str]:
    """Products exactly as similar as each other must come by id, the first of them first."""
    came: dict[float, list[int]] = defaultdict(list)
    for hit in found.hits:
        if hit.product_id in truth:
            came[truth[hit.product_id]].append(hit.product_id)
    equal: dict[float, list[int]] = defaultdict(list)
    for product in sorted(truth):
        equal[truth[product]].append(product)
    return [
        f"of {equal[similarity]}, equally similar, came {products}"
        for similarity, products in came.items()
        if products != equal[similarity][: len(products)]
    ]
