"""Vectors to build indexes of, and what an index needs to be searched as a whole."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np

from app.index.embedding_reader import EmbeddingSnapshot
from app.types import Vectors


def unit(rows: int, dim: int = 32, seed: int = 0) -> Vectors:
    found = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def clustered(rows: int, dim: int = 32) -> Vectors:
    """Vectors around a few hundred centres, like pictures of products of a few hundred kinds."""
    random = np.random.default_rng(1)
    centres = unit(300, dim)[random.integers(0, 300, rows)]
    found = centres + 0.3 * unit(rows, dim, seed=2)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def whole(vectors: Vectors) -> EmbeddingSnapshot:
    return EmbeddingSnapshot("1:1:", np.arange(len(vectors), dtype=np.int64), vectors)


def most_memory(work: Callable[[], object]) -> int:
    """Peak memory of numpy and Python in bytes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
