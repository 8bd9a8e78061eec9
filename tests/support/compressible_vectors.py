"""Vectors whose variance is in few directions, so that short codes order them well."""

from __future__ import annotations

import numpy as np

from app.index.embedding_reader import EmbeddingSnapshot
from app.types import Vectors

ROWS, DIM = 6000, 128


def spectrum(rows: int, dim: int, seed: int = 0) -> Vectors:
    """Unit vectors near a surface of sixteen dimensions: most of the variance is in few directions,
    like in embeddings of photos."""
    random = np.random.default_rng(seed)
    surface = np.random.default_rng(9).standard_normal((16, dim))
    noise = random.standard_normal((rows, dim)) * 0.7
    found = np.tanh(random.standard_normal((rows, 16)) @ surface / 4) * 4 + noise
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def content(rows: Vectors) -> EmbeddingSnapshot:
    return EmbeddingSnapshot("1:1:", np.arange(len(rows), dtype=np.int64) * 3 + 5, rows)
