"""Removes near-duplicates from a page's hits and folds duplicate products into one match.

Pure functions over values. Each dropped product names the rule that dropped it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from app.duplicates.evidence import LoadPictures, no_pictures
from app.duplicates.folding import Folding
from app.duplicates.groups import FoldCandidate, FoldedCandidate
from app.duplicates.related import parts
from app.types import ALREADY_SHOWN, Dropped, Folded, Hit, Product, Query, Vector, Verdict
from app.vectors import unit_float64

LIKE_QUERY = "the same photo as the query"
LIKE_MATCH = "looks the same as a better match"
UNWANTED_WORD = "has a word that was excluded"

ROUNDING = 1e-9
"""Largest distance that rounding (float64) gives two equal vectors."""

MAX_TYPO_PAIRS = 1000
"""Likely pairs of spellings that are compared for a page: a few times as many as the products of an
ordinary page can have."""


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
    not_tried: tuple[str, ...] = ()
    """What was not compared because it would take too long, in sentences."""


def needs_dedup(query: Query) -> bool:
    """Whether the query may drop or fold anything."""
    near = query.near_query is not None or query.near_match is not None
    return query.fold or near


def deduplicate(
    hits: Sequence[ScoredHit],
    query: Query,
    *,
    shown: Sequence[ScoredHit] = (),
    verdicts: Sequence[Verdict] = (),
    min_spelling_similarity: float,
    load_pictures: LoadPictures = no_pictures,
    k: int | None = None,
    complete: bool = True,
) -> DedupResult:
    """Drop near-duplicates and fold duplicate products, as the query asks; `hits` are best first.

    Only the first `k` matches (default: those of the query) have the products folded into them, and
    if the hits are not `complete`, only where there are so many matches: otherwise more hits will
    be asked for.

    `shown` are the products of earlier pages, which count as better matches than all `hits`.
    `min_spelling_similarity` (0 to 1) and `load_pictures` are passed to `Folding`.
    """
    distinct, dropped = _drop_near_duplicates(hits, shown, query)
    if not query.fold:
        return DedupResult(tuple((scored, ()) for scored in distinct), tuple(dropped))
    by_sku = {scored.product.sku: scored for scored in distinct}
    alone, related = _related(by_sku, shown, verdicts)
    folding = Folding(related, verdicts, min_spelling_similarity, load_pictures, MAX_TYPO_PAIRS)
    groups, already_shown = _unshown(by_sku, shown, folding)
    groups += [_Group(-each.score, each.hit.product_id, each) for each in alone]
    groups.sort()
    k = query.k if k is None else k
    explained = k if complete or len(groups) >= k else 0
    kept = tuple(
        (
            group.keeper,
            tuple(_folded(by_sku, fold) for fold in folding.explained(group.members).folded)
            if place < explained and group.members
            else (),
        )
        for place, group in enumerate(groups)
    )
    return DedupResult(kept, (*dropped, *already_shown), folding.not_tried)


class _Group(NamedTuple):
    """The hits that are one product. Groups are ordered by the best score and the keeper's id;
    `members` are empty if there is the keeper alone, and begin with it otherwise."""

    score: float
    product_id: int
    keeper: ScoredHit
    members: Sequence[FoldCandidate] = ()


def similarity_of(hit: Hit) -> float | None:
    """The cosine similarity of a hit; None where words found it and no vector was compared."""
    return None if math.isnan(hit.distance) else hit.similarity


def _drop_near_duplicates(
    hits: Sequence[ScoredHit], shown: Sequence[ScoredHit], query: Query
) -> tuple[list[ScoredHit], list[Dropped]]:
    """Separates near-duplicates of the query and of better matches from the other hits."""
    if query.near_query is None and query.near_match is None:
        return list(hits), []
    kept: list[ScoredHit] = []
    dropped: list[Dropped] = []
    better_matches = _KeptVectors([*shown, *hits] if query.near_match is not None else [])
    if query.near_match is not None:
        for scored in shown:
            better_matches.add(scored)
    for scored in hits:
        sku, distance = scored.product.sku, scored.hit.distance
        if query.near_query is not None and distance <= query.near_query:
            dropped.append(Dropped(sku, LIKE_QUERY, distance, None))
            continue
        if query.near_match is not None:
            nearest = better_matches.nearest_within(scored, query.near_match)
            if nearest is not None:
                dropped.append(Dropped(sku, LIKE_MATCH, nearest[1], nearest[0].product.sku))
                continue
            better_matches.add(scored)
        kept.append(scored)
    return kept, dropped


class _KeptVectors:
    """The unit vectors of the hits kept so far, to find the nearest of them."""

    def __init__(self, hits: Sequence[ScoredHit]) -> None:
        """Allocates memory for the vectors of all `hits`."""
        dim = next((len(scored.vector) for scored in hits if scored.vector is not None), 0)
        self._vectors = np.empty((len(hits), dim), dtype=np.float64)
        self._kept: list[ScoredHit] = []

    def add(self, scored: ScoredHit) -> None:
        self._vectors[len(self._kept)] = _unit(scored)
        self._kept.append(scored)

    def nearest_within(
        self, scored: ScoredHit, max_distance: float
    ) -> tuple[ScoredHit, float] | None:
        """The nearest hit kept and its distance, if it is at most `max_distance` away."""
        if not self._kept:
            return None
        distances = 1.0 - self._vectors[: len(self._kept)] @ _unit(scored)
        nearest = int(distances.argmin())
        distance = max(float(distances[nearest]), 0.0)
        return (self._kept[nearest], distance) if distance <= max_distance + ROUNDING else None


def _unit(scored: ScoredHit) -> np.ndarray:
    assert scored.vector is not None, "near-duplicates are dropped by their vectors"
    return unit_float64(scored.vector)


def _related(
    hits: Mapping[str, ScoredHit], shown: Sequence[ScoredHit], verdicts: Sequence[Verdict]
) -> tuple[list[ScoredHit], list[FoldCandidate]]:
    """The hits (by sku) that are like no other product, and the candidates among the others and
    those products of earlier pages that have to do with a hit."""
    products = {each.product.sku: each.product for each in (*shown, *hits.values())}
    alone, related = dict(hits), list[FoldCandidate]()
    for part in parts([*products.values()], verdicts):
        own = [alone.pop(each.sku, None) for each in part]
        if any(own):
            related += (
                FoldCandidate(each, math.inf if hit is None else _rank_similarity(hit))
                for each, hit in zip(part, own, strict=True)
            )
    return [*alone.values()], related


def _unshown(
    hits: Mapping[str, ScoredHit], shown: Sequence[ScoredHit], folding: Folding
) -> tuple[list[_Group], list[Dropped]]:
    """The groups of candidates, of hits by sku, and the products dropped because an earlier page
    showed one of their group."""
    shown_skus = {scored.product.sku for scored in shown}
    groups, dropped = list[_Group](), list[Dropped]()
    for members in folding.members():
        skus = [member.sku for member in members]
        if shown_in_group := [sku for sku in skus if sku in shown_skus]:
            first = min(shown_in_group)
            dropped += [
                Dropped(sku, ALREADY_SHOWN, None, first) for sku in skus if sku not in shown_skus
            ]
            continue
        score, keeper = max(hits[sku].score for sku in skus), hits[skus[0]]
        others = members if len(members) > 1 else ()
        groups.append(_Group(-score, keeper.hit.product_id, keeper, others))
    return groups, dropped


def _rank_similarity(scored: ScoredHit) -> float:
    """The similarity by which the keeper of a group is chosen; hits found by words alone rank last,
    and equal."""
    similarity = similarity_of(scored.hit)
    return -2.0 if similarity is None else similarity


def _folded(by_sku: Mapping[str, ScoredHit], folded: FoldedCandidate) -> Folded:
    similarity = similarity_of(by_sku[folded.candidate.sku].hit)
    return Folded(
        folded.candidate.product, folded.rule, folded.matched_by, similarity, folded.evidence,
        folded.distance,
    )  # fmt: skip
