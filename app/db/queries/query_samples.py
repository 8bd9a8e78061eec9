"""SQL of `query_sample`: the vectors of a few hundred recent searches, and nothing else of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, text

from app.db.queries.nearest import literal
from app.types import Crossovers, Model, Vector, Vectors

MAX_SAMPLES = 500
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
        {"model": model_id, "kept": MAX_SAMPLES},
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


def read_crossovers(connection: Connection, model_id: int) -> Crossovers:
    """What was measured for a model; the defaults where nothing was."""
    sql = "SELECT exact_pictures, deep_share FROM tuning WHERE model_id = %(model)s"
    row = connection.exec_driver_sql(sql, {"model": model_id}).one_or_none()
    return Crossovers(*row) if row else Crossovers()


def save_crossovers(
    connection: Connection, model_id: int, found: Crossovers, figures: Mapping[str, Any]
) -> None:
    """Keep what was measured, in place of what was there."""
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
            "exact": found.exact_pictures,
            "share": found.deep_share,
            "figures": json.dumps(figures),
        },
    )
