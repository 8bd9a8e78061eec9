"""Random vectors in clusters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.types import Vectors

DIM = 512
CLUSTERS = 2000
CLUSTER_SPREAD = 0.7
"""Expected distance of a vector from the centre of its cluster, before normalisation."""


def generate_vectors(rows: int, seed: int) -> Vectors:
    """Unit vectors, shape (rows, 512), float32; the cluster centres do not depend on `seed`."""
    return generate_rows(rows, seed)[0]


def generate_rows(rows: int, seed: int) -> tuple[Vectors, NDArray[np.int64]]:
    """`generate_vectors`, and the number of the cluster of each, shape (rows,), int64."""
    centres = np.random.default_rng(0).standard_normal((CLUSTERS, DIM)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    random = np.random.default_rng(seed)
    steps = random.standard_normal((rows, DIM)).astype(np.float32) * (CLUSTER_SPREAD / DIM**0.5)
    clusters = random.integers(0, CLUSTERS, rows)
    vectors: Vectors = centres[clusters] + steps
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), clusters


def generate_clusters(rows: int, seed: int) -> NDArray[np.int64]:
    """The number of the cluster of each row of `generate_vectors`, shape (rows,), int64."""
    random = np.random.default_rng(seed)
    random.standard_normal((rows, DIM))  # the steps are drawn first
    return random.integers(0, CLUSTERS, rows)
