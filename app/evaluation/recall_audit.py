"""Audit: how often searches answer what an exact scan of the same snapshot answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import cycle
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine

from app.config import Settings
from app.db.engine import check_schema, snapshot
from app.db.queries import embeddings, index_builds, models, nearest, products, query_samples
from app.errors import BuildRefused
from app.index.file_store import IndexFiles
from app.search.planner import find
from app.search.retrieval import RetrievalRequest, exact_search
from app.types import Filters, Model, Vector, Vectors
from app.vectors import round_to_float16

DEPTH = 50

EPSILON = 1e-5
"""Cosine by which two distances that PostgreSQL computed may differ and still be equal."""


@dataclass(frozen=True, slots=True)
class RecallAudit:
    """What searches with the published build found of the exact answer.

    `recall_at_10` and `recall_at_50` are shares between 0 and 1 over `queries` queries, `by_faiss`
    of which FAISS answered; `recall_filtered` is the recall@10 of the same queries within one of
    the largest categories; `recorded` is the recall@10 measured when the build was made.
    """

    build: int
    queries: int
    by_faiss: int
    recall_at_10: float
    recall_at_50: float
    recall_filtered: float
    recorded: float | None

    def as_dict(self) -> dict[str, Any]:
        """The figures by name."""
        return asdict(self)


def audit(engine: Engine, files: IndexFiles, settings: Settings, queries: int) -> RecallAudit:
    """Ask recent real queries and pictures of the catalogue, and ask them exactly too.

    Raises NoModel, and BuildRefused where no build is published.
    """
    with snapshot(engine) as connection:
        check_schema(connection)
        model = models.require_active(connection)
        usable = index_builds.usable(connection, model.id)
        if not usable:
            raise BuildRefused("No index is published; run `lookalike index rebuild`.")
        asked = _queries(connection, model, queries)
        found = [_shares(connection, model, vector, files, settings) for vector in asked]
        within = [
            _filtered_share(connection, model, vector, category, files, settings)
            for vector, category in zip(
                asked, cycle(products.common_categories(connection)), strict=False
            )
        ]
    ten, fifty, faiss = np.array(found, dtype=np.float64).reshape(-1, 3).T
    return RecallAudit(
        usable[0].id,
        len(found),
        int(faiss.sum()),
        float(ten.mean()) if len(found) else 1.0,
        float(fifty.mean()) if len(found) else 1.0,
        float(np.mean(within)) if within else 1.0,
        usable[0].recall_at_10,
    )


def _queries(connection: Connection, model: Model, count: int) -> Vectors:
    """Recent queries for one half, as far as there are, and pictures for the rest."""
    real = query_samples.read(connection, model)[: count // 2]
    drawn = embeddings.random_vectors(connection, model, count - len(real))
    both: Vectors = np.vstack([real, drawn])
    return both


def _shares(
    connection: Connection, model: Model, vector: Vector, files: IndexFiles, settings: Settings
) -> tuple[float, float, bool]:
    """Shares of the first 10 and 50 that a search found, and whether FAISS answered."""
    ask = RetrievalRequest(connection, model, round_to_float16(vector), DEPTH)
    answer = find(ask, files, settings)
    truth = np.array([hit.distance for hit in exact_search(ask).hits])
    got = np.array([hit.distance for hit in answer.candidates.hits])
    return _share(got, truth, 10), _share(got, truth, DEPTH), answer.path == "faiss"


def _filtered_share(
    connection: Connection,
    model: Model,
    vector: Vector,
    category: str,
    files: IndexFiles,
    settings: Settings,
) -> float:
    """The share of the first 10 within a category that a search found."""
    rounded = round_to_float16(vector)
    ask = RetrievalRequest(connection, model, rounded, 10, Filters({"category": category}))
    truth = nearest.exact_filtered(
        connection, model, rounded, nearest.filter_clause(ask.filters), k=10, excluded=()
    )
    assert truth is not None
    got = find(ask, files, settings).candidates.hits
    return _share(
        np.array([hit.distance for hit in got]),
        np.array([hit.distance for hit in truth.hits]),
        10,
    )


def _share(got: np.ndarray, truth: np.ndarray, k: int) -> float:
    """The share of the first k products that is as near as the k-th nearest product."""
    if not len(truth):
        return 1.0
    top = truth[:k]
    return float((got[:k] <= top[-1] + EPSILON).sum() / len(top))
