"""Audits recall: compares searches with an exact scan of the same snapshot."""

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
"""Maximum k of the measured recall."""

MAX_ROUNDING = 1e-5
"""Maximum rounding error of a cosine distance: closer ones count as equal."""


@dataclass(frozen=True, slots=True)
class RecallAudit:
    """Recall of searches with the published build.

    `recall_at_10` and `recall_at_50` are shares between 0 and 1 over `queries` queries, `by_faiss`
    of which FAISS answered; `recall_filtered` is the recall@10 of the same queries within one of
    the largest categories; `recorded` is the recall@10 measured when the index was built.
    """

    build: int
    queries: int
    by_faiss: int
    recall_at_10: float
    recall_at_50: float
    recall_filtered: float
    recorded: float | None

    def as_dict(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


def audit(engine: Engine, files: IndexFiles, settings: Settings, queries: int) -> RecallAudit:
    """Search with recent queries and with pictures of the catalogue, and compare with exact scans.

    Raises NoModel, and BuildRefused where no build is published.
    """
    with snapshot(engine) as connection:
        check_schema(connection)
        model = models.require_active(connection)
        usable = index_builds.usable(connection, model.id)
        if not usable:
            raise BuildRefused("No index is published; run `lookalike index rebuild`.")
        vectors = _queries(connection, model, queries)
        shares = [_shares(connection, model, vector, files, settings) for vector in vectors]
        filtered = [
            _filtered_share(connection, model, vector, category, files, settings)
            for vector, category in zip(
                vectors, cycle(products.common_categories(connection)), strict=False
            )
        ]
    ten, fifty, faiss = np.array(shares, dtype=np.float64).reshape(-1, 3).T
    return RecallAudit(
        usable[0].id,
        len(shares),
        int(faiss.sum()),
        float(ten.mean()) if shares else 1.0,
        float(fifty.mean()) if shares else 1.0,
        float(np.mean(filtered)) if filtered else 1.0,
        usable[0].recall_at_10,
    )


def _queries(connection: Connection, model: Model, count: int) -> Vectors:
    """Unit vectors (count, dim): recent queries, up to one half, and random pictures."""
    recent = query_samples.read(connection, model)[: count // 2]
    pictures = embeddings.random_vectors(connection, model, count - len(recent))
    vectors: Vectors = np.vstack([recent, pictures])
    return vectors


def _shares(
    connection: Connection, model: Model, vector: Vector, files: IndexFiles, settings: Settings
) -> tuple[float, float, bool]:
    """Recall@10 and recall@50 of one search, and whether FAISS answered."""
    request = RetrievalRequest(model, round_to_float16(vector), DEPTH, connection=connection)
    result = find(request, files, settings)
    expected = np.array([hit.distance for hit in exact_search(request).hits])
    distances = np.array([hit.distance for hit in result.candidates.hits])
    return (
        _share(distances, expected, 10),
        _share(distances, expected, DEPTH),
        result.path == "faiss",
    )


def _filtered_share(
    connection: Connection,
    model: Model,
    vector: Vector,
    category: str,
    files: IndexFiles,
    settings: Settings,
) -> float:
    """Recall@10 of one search within a category."""
    rounded = round_to_float16(vector)
    request = RetrievalRequest(
        model, rounded, 10, Filters({"category": category}), connection=connection
    )
    exact = nearest.exact_filtered(
        connection, model, rounded, nearest.filter_clause(request.filters), k=10, excluded=()
    )
    assert exact is not None
    hits = find(request, files, settings).candidates.hits
    return _share(
        np.array([hit.distance for hit in hits]),
        np.array([hit.distance for hit in exact.hits]),
        10,
    )


def _share(distances: np.ndarray, expected: np.ndarray, k: int) -> float:
    """The share of the first k results that are as near as the k-th nearest product."""
    if not len(expected):
        return 1.0
    top = expected[:k]
    return float((distances[:k] <= top[-1] + MAX_ROUNDING).sum() / len(top))
