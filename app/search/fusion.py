"""Reciprocal rank fusion: one order out of several, without comparing their scores.

Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank
learning methods", SIGIR 2009: each list gives 1 / (60 + rank) to what it holds.
"""

from __future__ import annotations

from collections.abc import Sequence

CONSTANT = 60


def fused(lists: Sequence[tuple[float, Sequence[int]]]) -> dict[int, float]:
    """The score of every id in any of the lists (weight, ids best first), best first.

    An id that a list does not hold gets nothing from it. Of ids with equal scores, as those of a
    list without weight, the one that comes earlier in some list is the better.
    """
    scores: dict[int, float] = {}
    best: dict[int, int] = {}
    for weight, ids in lists:
        for rank, id_ in enumerate(ids, start=1):
            scores[id_] = scores.get(id_, 0.0) + weight / (CONSTANT + rank)
            best[id_] = min(rank, best.get(id_, rank))
    return dict(sorted(scores.items(), key=lambda item: (-item[1], best[item[0]], item[0])))
