"""SQL of `query_sample` (vectors of recent searches, nothing else of them) and `tuning`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, text

from app.db.queries.nearest import literal
from app.types import Crossovers, Model, Vector, Vectors

MAX_SAMPLES = 500
"""Rows kept per model; recall of a build is measured with the newest 200."""


def add(connection: Connection, model_id: int, vectors: Sequence[Vector]) -> None:
    """Store query vectors and delete the oldest ones of the model; ids increase with time."""
    connection.execute(
        text(
            "INSERT INTO query_sample (model_id, vec)"
            " SELECT :model, v::halfvec FROM unnest(CAST(:vectors AS text[])) AS v"
        ),
        {"model": model_id, "vectors": [literal(vector) for vector in vectors]},
    )
    connection.execute(
        text(
            """DELETE FROM query_sample WHERE model_id = :model AND id <= (
                SELECT id FROM query_sample WHERE model_id = :model
                ORDER BY id DESC OFFSET :kept LIMIT 1)"""
        ),
        {"model": model_id, "kept": MAX_SAMPLES},
    )


def read(connection: Connection, model: Model) -> Vectors:
    """The stored queries, newest first, as unit vectors, shape (n, dim), float32."""
    rows = connection.execute(
        text("SELECT vec::text FROM query_sample WHERE model_id = :model ORDER BY id DESC"),
        {"model": model.id},
    ).scalars()
    queries = np.array([json.loads(row) for row in rows], dtype=np.float32).reshape(-1, model.dim)
    lengths = np.linalg.norm(queries, axis=1, keepdims=True)
    valid = lengths[:, 0] > 0
    unit: Vectors = queries[valid] / lengths[valid]
    return unit


def read_crossovers(connection: Connection, model_id: int) -> Crossovers:
    """The measured crossovers of a model, or the defaults."""
    sql = "SELECT exact_pictures, deep_share FROM tuning WHERE model_id = %(model)s"
    row = connection.exec_driver_sql(sql, {"model": model_id}).one_or_none()
    return Crossovers(*row) if row else Crossovers()


def save_crossovers(
    connection: Connection, model_id: int, crossovers: Crossovers, figures: Mapping[str, Any]
) -> None:
    """Store the crossovers of a model and the figures behind them; replaces earlier ones."""
    connection.execute(
        text(
            """INSERT INTO tuning (model_id, exact_pictures, deep_share, figures)
            VALUES (:model, :exact, :share, CAST(:figures AS jsonb))
            ON CONFLICT (model_id) DO UPDATE SET exact_pictures = excluded.exact_pictures,
                deep_share = excluded.deep_share, figures = excluded.figures,
                measured_at = clock_timestamp()"""
        ),
        {
            "model": model_id,
            "exact": crossovers.exact_pictures,
            "share": crossovers.deep_share,
            "figures": json.dumps(figures),
        },
    )
