"""SQL of `query_sample`: the vectors of a few hundred recent searches, and nothing else of them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from sqlalchemy import Connection, text

from app.store.neighbours import literal
from app.types import Model, Vector, Vectors

KEPT = 500
"""Rows a model; a build is measured with the newest two hundred."""


def add(connection: Connection, model_id: int, vectors: Sequence[Vector]) -> None:
    """Store vectors and forget the oldest; ids only grow, so the newest are those near the end."""
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
        {"model": model_id, "kept": KEPT},
    )


def read(connection: Connection, model: Model) -> Vectors:
    """The newest queries first, as unit vectors, shape (n, dim), float32."""
    rows = connection.execute(
        text("SELECT vec::text FROM query_sample WHERE model_id = :model ORDER BY id DESC"),
        {"model": model.id},
    ).scalars()
    found = np.array([json.loads(row) for row in rows], dtype=np.float32).reshape(-1, model.dim)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    unit: Vectors = found[lengths[:, 0] > 0] / lengths[lengths[:, 0] > 0]
    return unit
