"""Reciprocal rank fusion: merges ranked lists by rank, without comparing their scores.

Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank
learning methods", SIGIR 2009: each list contributes 1 / (60 + rank) to the score of each item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

RRF_K = 60
"""The constant of the paper."""


def fuse(lists: Sequence[tuple[float, Sequence[int]]]) -> dict[int, float]:
    """The fused score of every id in the lists (weight, ids best first), best first.

    A list contributes nothing to an id it lacks. Ids with equal scores, such as those of a list
    with weight 0, are ordered by their best rank in any list, then by id.
    """
    scores: dict[int, float] = {}
    best_rank: dict[int, int] = {}
    for weight, ids in lists:
        for rank, id_ in enumerate(ids, start=1):
            scores[id_] = scores.get(id_, 0.0) + weight / (RRF_K + rank)
            best_rank[id_] = min(rank, best_rank.get(id_, rank))
    return dict(sorted(scores.items(), key=lambda item: (-item[1], best_rank[item[0]], item[0])))


def with_first(
    scores: Mapping[int, float], first: Sequence[int], *, keep_order: bool
) -> dict[int, float]:
    """The scores of `fuse`, with the ids in `first` above all others, best first: in their own
    order, or in that of the scores."""
    if not keep_order:
        leading = set(first)
        first = [id_ for id_ in scores if id_ in leading]
    above = {id_: 1 + 1 / (RRF_K + rank) for rank, id_ in enumerate(first, start=1)}
    return above | {id_: score for id_, score in scores.items() if id_ not in above}
