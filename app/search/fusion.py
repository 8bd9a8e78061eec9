"""Reciprocal rank fusion: merges ranked lists by rank, without comparing their scores.

Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank
learning methods", SIGIR 2009: each list contributes 1 / (60 + rank) to the score of each item.
"""

from __future__ import annotations

from collections.abc import Sequence

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
