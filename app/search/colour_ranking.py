"""Ranks products by the colours that words name, which a vector tells badly and pixels well.

The products nearest to the query's vector are ranked by that similarity and by how much of the
colours their pictures show, both standardised. Those with most of a wanted colour join them,
wherever they are. A picture whose colours are not known is ranked by its similarity to the whole
text, colours included. Reasons and figures: `docs/decisions/0069-colours-of-pictures.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from app.db.queries import full_text, nearest, picture_colours
from app.images.basic_colours import VERSION
from app.search.retrieval import RetrievalRequest
from app.types import Hit, Vectors

POOL_PRODUCTS = 400
"""Products nearest to the vector that are ranked. More only where a page needs more."""

NOMINEES = 200
"""Pictures with most of each wanted colour that are ranked too."""

WEIGHT = 0.5
"""Of the colours; that of the similarity is the rest."""

SPREAD = float(np.hypot(WEIGHT, 1 - WEIGHT))
"""Of the sum of both, weighted, if they have nothing to do with each other."""

Scores = NDArray[np.float64]


def colour_scores(colours: Vectors, shares: Sequence[NDArray[np.float32]]) -> Scores:
    """How much of the colours (n, 18) pictures with these shares (18,) show: the mean of the roots,
    those of unwanted colours negative."""
    if not shares:
        return np.zeros(0)
    signs = np.where(colours.sum(1) < 0, -1.0, 1.0)
    shown = np.sqrt(np.clip(np.stack(shares) @ np.abs(colours).T, 0, 1))
    return np.asarray(shown @ signs / len(colours), np.float64)


def ranked(
    hits: Sequence[Hit],
    colours: Vectors,
    shares: Mapping[int, NDArray[np.float32]],
    to_whole: Mapping[int, float],
) -> list[tuple[Hit, float]]:
    """Hits with their scores, best first: by similarity, and by the shares of their pictures (ids).

    Those whose pictures have none are ranked by the cosine similarity of the product (id) to the
    whole text, if that is another one than their own.
    """
    ids = [(hit.product_id, hit.picture_id) for hit in hits]
    distances = np.array([hit.distance for hit in hits], np.float64)
    known = np.array([picture in shares for _, picture in ids], bool)
    shown = colour_scores(colours, [shares[picture] for _, picture in ids if picture in shares])
    similarity = 1.0 - distances
    scores = similarity.copy()
    if to_whole:
        scores[:] = [to_whole.get(id_, own) for (id_, _), own in zip(ids, scores, strict=True)]
    scores = _standardised(scores)
    both = (1 - WEIGHT) * _standardised(similarity)[known] + WEIGHT * _standardised(shown)
    scores[known] = both / SPREAD
    products = np.array([id_ for id_, _ in ids], np.int64)
    order = np.lexsort((products, distances, -scores)).tolist()
    return [(hits[place], float(scores[place])) for place in order]


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


def known_shares(connection: Connection, hits: Sequence[Hit]) -> dict[int, NDArray[np.float32]]:
    """The shares, (18,), of those of the hits' pictures (ids) whose colours are known."""
    return picture_colours.shares(connection, VERSION, [hit.picture_id for hit in hits])


def with_further(
    retrieval: RetrievalRequest, hits: Sequence[Hit], by_whole: Sequence[Hit]
) -> list[Hit]:
    """The hits of a retrieval, and the products that only a retrieval by the whole text found."""
    known = {hit.product_id for hit in hits}
    ids = [hit.product_id for hit in by_whole if hit.product_id not in known]
    if not ids:
        return list(hits)
    further = full_text.nearest_hits(
        retrieval.connection, retrieval.model, retrieval.vector, ids, hidden=retrieval.hidden
    )
    return [*hits, *further]


def _standardised(values: Scores) -> Scores:
    """Values with mean 0 and standard deviation 1."""
    spread = float(values.std()) if len(values) else 0.0
    return np.zeros_like(values) if spread < 1e-9 else (values - values.mean()) / spread
