"""Reads a snapshot and ranks it with numpy only: the reference for every search path."""

from __future__ import annotations

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
"""Similarities closer than this may be in either order: the precision of float32."""


@dataclass(frozen=True)
class Rows:
    """The embeddings of products in one snapshot: product ids, picture ids, vectors."""

    products: NDArray[np.int64]
    pictures: NDArray[np.int64]
    vectors: NDArray[np.float64]

    def similarities(self, query: NDArray[np.float32]) -> dict[int, float]:
        """The best similarity of each product; equal vectors have bitwise equal similarities."""
        wide = query.astype(np.float64)
        lengths = np.linalg.norm(self.vectors, axis=1) * np.linalg.norm(wide)
        # Summed row by row: a matrix product sums equal rows in different orders.
        cosine = (self.vectors * wide).sum(axis=1) / lengths
        best: dict[int, float] = {}
        for product, similarity in zip(self.products.tolist(), cosine.tolist(), strict=True):
            best[product] = max(similarity, best.get(product, -2.0))
        return best


def read(connection: Connection, model_id: int = 1) -> Rows:
    """Every embedding with its products, as visible to this transaction."""
    rows = connection.execute(
        text(
            "SELECT pp.product_id, e.picture_id, halfvec_send(e.vec) AS vec FROM embedding AS e"
            " JOIN product_picture AS pp USING (picture_id) WHERE e.model_id = :model"
        ),
        {"model": model_id},
    ).all()
    return Rows(
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=np.int64),
        _unpacked([row.vec for row in rows]),
    )


def _unpacked(sent: list[bytes]) -> NDArray[np.float64]:
    """Vectors in pgvector's binary format: two int16, the first of them the dimension, and the
    values as float16, all in network byte order."""
    if not sent:
        return np.empty((0, 0))
    words = np.frombuffer(b"".join(sent), dtype=">u2").reshape(len(sent), -1)
    return words[:, 2:].copy().view(">f2").astype(np.float64)


@contextmanager
def quick_snapshot(app: App) -> Iterator[Connection]:
    """A snapshot on a connection of the pool for single-statement searches."""
    with app.fast_engine.connect() as connection:
        connection.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        try:
            yield connection
        finally:
            connection.exec_driver_sql("ROLLBACK")


def at_once_with_newest(
    connection: Connection, app: App, model: Model, query: Vector, k: int
) -> RetrievalResult | None:
    """The result of the single-statement path in a quick snapshot with the newest build, visible to
    the snapshot or not; None if that path does not answer."""
    with app.engine.connect() as other_connection:
        newest = next(iter(index_builds.usable(other_connection, model.id)), None)
    if newest is None:
        return None
    with suppress(IndexUnreadable):  # retired a moment ago
        nominees = app.files.open(newest).nominate(query / np.linalg.norm(query), k + 16, k)
        raw = connection.connection.driver_connection
        result = single_statement.search(
            raw, single_statement.StatementRequest(model, newest, query, k + 16, k),
            nominees.ids, nominees.seen_to,
            cluster=single_statement.cluster(raw), max_delta_rows=app.settings.max_delta_rows,
            known=nominees.known,
        )  # fmt: skip
        if result is not None and is_complete(result.candidates, k):
            return build_result(result.candidates, newest, result.delta_rows)
    return None


def differences(
    rows: Rows, query: NDArray[np.float32], candidates: Candidates, k: int
) -> list[str]:
    """The differences of the first k results from the exact ones; empty if ids, order and
    similarity agree."""
    if not len(rows.products):
        return [] if not candidates.hits else ["there are hits although the table is empty"]
    truth = rows.similarities(query)
    best = sorted(truth.values(), reverse=True)[:k]
    wrong = []
    if len(candidates.hits) != len(best):
        wrong.append(f"{len(candidates.hits)} hits instead of {len(best)}")
    for place, (hit, similarity) in enumerate(zip(candidates.hits, best, strict=False)):
        if hit.product_id not in truth:
            wrong.append(f"{place}: product {hit.product_id} is not in the snapshot")
        elif abs(hit.similarity - truth[hit.product_id]) > EQUAL:
            wrong.append(f"{place}: product {hit.product_id} has another similarity")
        elif abs(hit.similarity - similarity) > EQUAL:
            wrong.append(f"{place}: {hit.similarity} is in the place of {similarity}")
    if len({hit.product_id for hit in candidates.hits}) != len(candidates.hits):
        wrong.append("a product is in the result twice")
    return wrong + _out_of_order(truth, candidates)


def _out_of_order(truth: dict[int, float], candidates: Candidates) -> list[str]:
    """Products of exactly equal similarity must be in order of id, lowest first."""
    came: dict[float, list[int]] = defaultdict(list)
    for hit in candidates.hits:
        if hit.product_id in truth:
            came[truth[hit.product_id]].append(hit.product_id)
    equal: dict[float, list[int]] = defaultdict(list)
    for product in sorted(truth):
        equal[truth[product]].append(product)
    return [
        f"of {equal[similarity]}, equally similar, the result has {products}"
        for similarity, products in came.items()
        if products != equal[similarity][: len(products)]
    ]
