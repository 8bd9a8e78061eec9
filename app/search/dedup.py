"""Removes near-duplicates from a page's hits and folds duplicate products into one match.

Pure functions over values. Each dropped product names the rule that dropped it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.duplicates.rules import FoldCandidate, FoldedCandidate, fold
from app.types import Dropped, Folded, Hit, Product, Query, Vector, Verdict
from app.vectors import unit_float64

LIKE_QUERY = "the same photo as the query"
LIKE_MATCH = "looks the same as a better match"
ALREADY_SHOWN = "the same product as one shown before"

ROUNDING = 1e-9
"""Largest distance that rounding (float64) gives two equal vectors."""


@dataclass(frozen=True, slots=True)
class ScoredHit:
    """A hit with its product; `score` orders hits, higher is better.

    `vector` has shape (dim,), float32; needed only where near-duplicates are dropped.
    """

    hit: Hit
    product: Product
    score: float
    vector: Vector | None = None


@dataclass(frozen=True, slots=True)
class DedupResult:
    """The hits that stay, best first, each with the products folded into it, and those dropped."""

    kept: tuple[tuple[ScoredHit, tuple[Folded, ...]], ...]
    dropped: tuple[Dropped, ...] = ()


def needs_dedup(query: Query) -> bool:
    """Whether the query may drop or fold anything."""
    near = query.near_query is not None or query.near_match is not None
    return query.fold or near or bool(query.shown)


def deduplicate(
    hits: Sequence[ScoredHit],
    query: Query,
    *,
    shown: Sequence[ScoredHit] = (),
    verdicts: Sequence[Verdict] = (),
    typo: float,
) -> DedupResult:
    """Drop near-duplicates and fold duplicate products, as the query asks; `hits` are best first.

    `shown` are the products of earlier pages, which count as better matches than all `hits`.
    `typo` is the similarity (0 to 1) that two spellings of a word must reach.
    """
    distinct, dropped = _drop_near_duplicates(hits, shown, query)
    if not query.fold:
        return DedupResult(tuple((each, ()) for each in distinct), tuple(dropped))
    kept, already_shown = _fold(distinct, shown, verdicts, typo)
    return DedupResult(tuple(kept), (*dropped, *already_shown))


def similarity_of(hit: Hit) -> float | None:
    """The cosine similarity of a hit; None where words found it and no vector was compared."""
    return None if np.isnan(hit.distance) else hit.similarity


def _drop_near_duplicates(
    hits: Sequence[ScoredHit], shown: Sequence[ScoredHit], query: Query
) -> tuple[list[ScoredHit], list[Dropped]]:
    """Separates near-duplicates of the query and of better matches from the other hits."""
    kept: list[ScoredHit] = []
    dropped: list[Dropped] = []
    better = _KeptVectors([*shown, *hits] if query.near_match is not None else [])
    if query.near_match is not None:
        for each in shown:
            better.add(each)
    for each in hits:
        sku, distance = each.product.sku, each.hit.distance
        if query.near_query is not None and distance <= query.near_query:
            dropped.append(Dropped(sku, LIKE_QUERY, distance, None))
            continue
        if query.near_match is not None:
            nearest = better.within(each, query.near_match)
            if nearest is not None:
                dropped.append(Dropped(sku, LIKE_MATCH, nearest[1], nearest[0].product.sku))
                continue
            better.add(each)
        kept.append(each)
    return kept, dropped


class _KeptVectors:
    """The unit vectors of the hits kept so far, to find the nearest of them."""

    def __init__(self, hits: Sequence[ScoredHit]) -> None:
        """Reserves room for all `hits`."""
        dim = next((len(each.vector) for each in hits if each.vector is not None), 0)
        self._vectors = np.empty((len(hits), dim), dtype=np.float64)
        self._kept: list[ScoredHit] = []

    def add(self, each: ScoredHit) -> None:
        self._vectors[len(self._kept)] = _unit(each)
        self._kept.append(each)

    def within(self, each: ScoredHit, max_distance: float) -> tuple[ScoredHit, float] | None:
        """The nearest hit kept and its distance, if it is at most `max_distance` away."""
        if not self._kept:
            return None
        distances = 1.0 - self._vectors[: len(self._kept)] @ _unit(each)
        place = int(distances.argmin())
        distance = max(float(distances[place]), 0.0)
        return (self._kept[place], distance) if distance <= max_distance + ROUNDING else None


def _unit(each: ScoredHit) -> np.ndarray:
    assert each.vector is not None, "near-duplicates are dropped by their vectors"
    return unit_float64(each.vector)


def _fold(
    hits: Sequence[ScoredHit],
    shown: Sequence[ScoredHit],
    verdicts: Sequence[Verdict],
    typo: float,
) -> tuple[list[tuple[ScoredHit, tuple[Folded, ...]]], list[Dropped]]:
    """The keeper of each group with the products folded into it, and the products dropped because
    an earlier page showed one of their group."""
    by_sku = {each.product.sku: each for each in hits}
    shown_skus = {each.product.sku for each in shown}
    candidates = [FoldCandidate(each.product, _rank_similarity(each)) for each in hits]
    candidates += [FoldCandidate(each.product, np.inf) for each in shown]
    kept: list[tuple[float, ScoredHit, tuple[Folded, ...]]] = []
    dropped: list[Dropped] = []
    for group in fold(candidates, verdicts, typo):
        skus = [group.keeper.sku, *(each.candidate.sku for each in group.folded)]
        if before := [sku for sku in skus if sku in shown_skus]:
            first = min(before)
            dropped += [
                Dropped(sku, ALREADY_SHOWN, None, first) for sku in skus if sku not in shown_skus
            ]
            continue
        keeper = by_sku[group.keeper.sku]
        folded = tuple(_folded(by_sku, each) for each in group.folded)
        kept.append((max(by_sku[sku].score for sku in skus), keeper, folded))
    kept.sort(key=lambda each: (-each[0], each[1].hit.product_id))
    return [(keeper, folded) for _, keeper, folded in kept], dropped


def _rank_similarity(each: ScoredHit) -> float:
    """The similarity by which the keeper of a group is chosen; hits found by words alone rank last,
    and equal."""
    similarity = similarity_of(each.hit)
    return -2.0 if similarity is None else similarity


def _folded(by_sku: Mapping[str, ScoredHit], each: FoldedCandidate) -> Folded:
    similarity = similarity_of(by_sku[each.candidate.sku].hit)
    return Folded(each.candidate.product, each.rule, each.matched_by, similarity)
