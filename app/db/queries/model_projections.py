"""SQL of `model_projection`: the maps of fitted models, and the models that they follow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from app.types import Model


@dataclass(frozen=True, slots=True)
class StoredProjection:
    """The map (dim, dim) of a fitted model, and the model that it follows, which may have been
    dropped since: then its id is 0."""

    base: Model
    weights: NDArray[np.float32]


def save(
    connection: Connection,
    model_id: int,
    base: Model,
    weights: NDArray[np.float32],
    provenance: Mapping[str, Any],
) -> None:
    """Store the map of a model, unless it has one."""
    connection.execute(
        text(
            """INSERT INTO model_projection (model_id, base_name, base_revision, base_source,
                base_fingerprint, weights, provenance)
            VALUES (:model, :name, :revision, :source, :fingerprint, :weights,
                CAST(:provenance AS jsonb))
            ON CONFLICT (model_id) DO NOTHING"""
        ),
        {
            "model": model_id, "name": base.name, "revision": base.revision,
            "source": base.source, "fingerprint": base.fingerprint,
            "weights": weights.astype("<f4").tobytes(), "provenance": json.dumps(provenance),
        },
    )  # fmt: skip


def load(connection: Connection, model: Model) -> StoredProjection | None:
    """The map of a model; None for a model that was not fitted."""
    row = connection.execute(
        text(
            """SELECT coalesce(m.id, 0) AS id, p.base_name, p.base_revision, p.base_fingerprint,
                p.base_source, p.weights
            FROM model_projection AS p LEFT JOIN model AS m ON m.fingerprint = p.base_fingerprint
            WHERE p.model_id = :model"""
        ),
        {"model": model.id},
    ).one_or_none()
    if row is None:
        return None
    base = Model(
        row.id, row.base_name, row.base_revision, model.dim, row.base_fingerprint, row.base_source
    )
    weights = np.frombuffer(bytes(row.weights), "<f4").astype(np.float32)
    return StoredProjection(base, weights.reshape(model.dim, model.dim))
