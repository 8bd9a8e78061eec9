"""From hits to the matches of a page: near-duplicates dropped, duplicate products folded.

Pure: plain values in, plain values out. Each product that is left out says by which rule.
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
SHOWN = "the same product as one shown before"


@dataclass(frozen=True, slots=True)
class ScoredHit:
    """A hit with what is known of its product; `score` orders hits, higher is better.

    `vector` has shape (dim,), float32; needed only where near-duplicates are dropped.
    """

    hit: Hit
    product: Product
    score: float
    vector: Vector | None = None


@dataclass(frozen=True, slots=True)
class DedupResult:
    """What stays, best first, each with the products folded into it, and what was dropped."""

    kept: tuple[tuple[ScoredHit, tuple[Folded, ...]], ...]
    dropped: tuple[Dropped, ...] = ()


def asks_for_shape(query: Query) -> bool:
    """Whether anything may be dropped or folded at all."""
    near = query.near_query is not None or query.near_match is not None
    return query.fold or near or bool(query.shown)


def shape(
    found: Sequence[ScoredHit],
    query: Query,
    *,
    shown: Sequence[ScoredHit] = (),
    verdicts: Sequence[Verdict] = (),
    typo: float,
) -> DedupResult:
    """Leave out what the query does not want to see twice; `found` is in order, best first.

    `shown` are the products of earlier pages: they are better matches than all that is found now.
    """
    far, dropped = _far_enough(found, shown, query)
    if not query.fold:
        return DedupResult(tuple((each, ()) for each in far), tuple(dropped))
    kept, more = _folded(far, shown, verdicts, typo)
    return DedupResult(tuple(kept), (*dropped, *more))


def _far_enough(
    found: Sequence[ScoredHit], shown: Sequence[ScoredHit], query: Query
) -> tuple[list[ScoredHit], list[Dropped]]:
    """Those that neither look like the query nor like a better match that stays."""
    kept: list[ScoredHit] = []
    dropped: list[Dropped] = []
    nearest = _Nearest([*shown, *found] if query.near_match is not None else [])
    if query.near_match is not None:
        for each in shown:
            nearest.add(each)
    for each in found:
        sku, distance = each.product.sku, each.hit.distance
        if query.near_query is not None and distance <= query.near_query:
            dropped.append(Dropped(sku, LIKE_QUERY, distance, None))
            continue
        if query.near_match is not None:
            other = nearest.within(each, query.near_match)
            if other is not None:
                dropped.append(Dropped(sku, LIKE_MATCH, other[1], other[0].product.sku))
                continue
            nearest.add(each)
        kept.append(each)
    return kept, dropped


class _Nearest:
    """The vectors of what was kept so far, to find the nearest of them."""

    def __init__(self, found: Sequence[ScoredHit]) -> None:
        dim = next((len(each.vector) for each in found if each.vector is not None), 0)
        self._vectors = np.empty((len(found), dim), dtype=np.float64)
        self._kept: list[ScoredHit] = []

    def add(self, each: ScoredHit) -> None:
        self._vectors[len(self._kept)] = _unit(each)
        self._kept.append(each)

    def within(self, each: ScoredHit, distance: float) -> tuple[ScoredHit, float] | None:
        """The nearest of the kept, and how far it is, if it is no farther than that."""
        if not self._kept:
            return None
        distances = 1.0 - self._vectors[: len(self._kept)] @ _unit(each)
        place = int(distances.argmin())
        least = max(float(distances[place]), 0.0)
        return (self._kept[place], least) if least <= distance + ROUNDING else None


ROUNDING = 1e-9
"""Two equal vectors are so far apart at most, in float64."""


def _unit(each: ScoredHit) -> np.ndarray:
    assert each.vector is not None, "near-duplicates are dropped by their vectors"
    return unit_float64(each.vector)


def _folded(
    found: Sequence[ScoredHit],
    shown: Sequence[ScoredHit],
    verdicts: Sequence[Verdict],
    typo: float,
) -> tuple[list[tuple[ScoredHit, tuple[Folded, ...]]], list[Dropped]]:
    """The keepers, each with what is folded into it; what earlier pages showed keeps them all."""
    by_sku = {each.product.sku: each for each in found}
    before = {each.product.sku for each in shown}
    candidates = [FoldCandidate(each.product, _likeness(each)) for each in found]
    candidates += [FoldCandidate(each.product, np.inf) for each in shown]
    kept: list[tuple[float, ScoredHit, tuple[Folded, ...]]] = []
    dropped: list[Dropped] = []
    for group in fold(candidates, verdicts, typo):
        members = (group.keeper, *(each.candidate for each in group.folded))
        if old := [each.product.sku for each in members if each.product.sku in before]:
            new = [each.product.sku for each in members if each.product.sku not in before]
            dropped += [Dropped(sku, SHOWN, None, min(old)) for sku in new]
            continue
        keeper = by_sku[group.keeper.product.sku]
        folded = tuple(
            Folded(
                each.candidate.product,
                each.rule,
                each.matched_by,
                _similarity(by_sku, each),
            )
            for each in group.folded
        )
        kept.append((max(by_sku[each.sku].score for each in members), keeper, folded))
    kept.sort(key=lambda each: (-each[0], each[1].hit.product_id))
    return [(keeper, folded) for _, keeper, folded in kept], dropped


def _likeness(found: ScoredHit) -> float:
    """What decides who stays of a group: the similarity. Those that only words found are alike."""
    similarity = similarity_of(found.hit)
    return -2.0 if similarity is None else similarity


def _similarity(by_sku: Mapping[str, ScoredHit], each: FoldedCandidate) -> float | None:
    return similarity_of(by_sku[each.candidate.sku].hit)


def similarity_of(hit: Hit) -> float | None:
    """The cosine similarity of a hit; None where words found it and nothing was compared."""
    return None if np.isnan(hit.distance) else hit.similarity
