"""Ranks products by the colours that words name, which a vector tells badly and pixels well.

The products nearest to the query's vector are ranked by that similarity and by how much of the
colours their pictures show, both standardised. Those with most of a wanted colour join them,
wherever they are. Reasons and figures: `docs/decisions/0069-colours-of-pictures.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from app.db.queries import nearest, picture_colours
from app.search.retrieval import RetrievalRequest
from app.types import Hit, Vectors

POOL_PRODUCTS = 400
"""Products nearest to the vector that are ranked. More only where a page needs more."""

NOMINEES = 200
"""Pictures with most of each wanted colour that are ranked too."""

WEIGHT = 0.5
"""Of the colours; that of the similarity is the rest."""

Scores = NDArray[np.float64]


def colour_scores(colours: Vectors, shares: Sequence[NDArray[np.float32] | None]) -> Scores:
    """How much of the colours (n, 18) pictures show, each with its shares (18,) or None if they are
    not known: the mean of the roots, those of unwanted colours negative. What is not known counts
    as the mean of the others."""
    known = [each is not None for each in shares]
    scores = np.zeros(len(known))
    if any(known):
        table = np.stack([each for each in shares if each is not None])
        signs = np.where(colours.sum(1) < 0, -1.0, 1.0)
        shown = np.sqrt(np.clip(table @ np.abs(colours).T, 0, 1)) @ signs / len(colours)
        scores[known] = shown
        scores[np.logical_not(known)] = shown.mean()
    return scores


def ranked(
    hits: Sequence[Hit], colours: Vectors, shares: Mapping[int, NDArray[np.float32]]
) -> list[tuple[Hit, float]]:
    """Hits with their scores, best first: by similarity, and by the shares of their pictures."""
    shown = colour_scores(colours, [shares.get(hit.picture_id) for hit in hits])
    similarity = np.array([hit.similarity for hit in hits])
    scores = (1 - WEIGHT) * _standardised(similarity) + WEIGHT * _standardised(shown)
    scored = zip(hits, scores.tolist(), strict=True)
    return sorted(scored, key=lambda item: (-item[1], item[0].distance, item[0].product_id))


def with_nominees(retrieval: RetrievalRequest, hits: Sequence[Hit], colours: Vectors) -> list[Hit]:
    """The hits of a retrieval, and products that it did not find but that show most of a wanted
    colour."""
    mains = [int(row.argmax()) for row in colours if row.sum() > 0]
    if not mains:
        return list(hits)
    found = picture_colours.nominated(
        retrieval.connection, retrieval.model, retrieval.vector, mains,
        nearest.filter_clause(retrieval.filters),
        n=NOMINEES, excluded=retrieval.excluded, hidden=retrieval.hidden,
    )  # fmt: skip
    known = {hit.product_id for hit in hits}
    return [*hits, *(hit for hit in found if hit.product_id not in known)]


def _standardised(values: Scores) -> Scores:
    """Values with mean 0 and standard deviation 1."""
    spread = float(values.std()) if len(values) else 0.0
    return np.zeros_like(values) if spread < 1e-9 else (values - values.mean()) / spread
