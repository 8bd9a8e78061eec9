"""The exact result of a search, computed with numpy."""

from __future__ import annotations

import numpy as np

from app.bootstrap import App
from app.types import SearchResult
from support.shop import oracle, vectors


def skus(result: SearchResult) -> list[str]:
    return [match.product.sku for match in result.matches]


def expected(app: App, seeds: list[int], seed: int, k: int) -> list[tuple[str, float]]:
    """Sku and similarity of the k nearest of the numbered products, by numpy."""
    rows = dict(zip(seeds, vectors(app, seeds).astype(np.float16), strict=True))
    nearest = oracle(rows, vectors(app, [seed])[0], k)
    return [(f"P{id_:04}", 1 - distance) for id_, distance in nearest]


def assert_exact(app: App, result: SearchResult, seeds: list[int], seed: int, k: int) -> None:
    nearest = expected(app, seeds, seed, k)
    assert skus(result) == [sku for sku, _ in nearest]
    similarities = [match.similarity for match in result.matches]
    np.testing.assert_allclose(similarities, [similarity for _, similarity in nearest], atol=1e-6)
