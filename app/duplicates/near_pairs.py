"""Joins many pairs of products, the nearest first or a spanning few, without a step for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.duplicates.union_find import UnionFind

FIRST_PAIRS = 1024
"""Pairs that are joined before those of one set are sorted out; then twice as many each time."""


@dataclass(frozen=True, slots=True)
class NearPairs:
    """Pairs of products, all arrays of shape (n,): their distances (float64, 0 to 2), and their
    places (int32) in a list of skus."""

    distances: NDArray[np.float64]
    one: NDArray[np.int32]
    other: NDArray[np.int32]


def join_nearest_first(groups: UnionFind, skus: Sequence[str], pairs: Sequence[NearPairs]) -> None:
    """Join pairs of the products `skus` (in order), as far as they are not kept apart.

    Pairs with equal distances are joined in the order of their skus. Only the pairs that may still
    join two sets are visited one by one.
    """
    if not pairs:
        return
    one, other = (
        np.concatenate([getattr(each, end) for each in pairs]) for end in ("one", "other")
    )
    first, second = np.minimum(one, other), np.maximum(one, other)
    order = np.lexsort((second, first, np.concatenate([each.distances for each in pairs])))
    start, size = 0, FIRST_PAIRS
    while start < len(order):
        chunk = order[start : start + size]
        chunk = chunk[_may_join(groups, skus, first[chunk], second[chunk])]
        for a, b in zip(first[chunk].tolist(), second[chunk].tolist(), strict=True):
            groups.join(skus[a], skus[b])
        start, size = start + size, 2 * size


def connecting(
    near: NDArray[np.bool_], start: int, offset: int, part: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Those of the pairs in a block that connect two parts, shape (rows, columns) as `near`.

    The rows are numbered from `start`, the columns from `offset`. `part`, shape (n,), is the number
    of the part that each product is in; the parts that the pairs connect are merged in it.
    """
    kept = np.zeros_like(near)
    for row, is_near in enumerate(near):
        hits = np.flatnonzero(is_near)
        hits = hits[part[hits + offset] != part[start + row]]
        if not len(hits):
            continue
        parts, places = np.unique(part[hits + offset], return_index=True)
        kept[row, hits[places]] = True
        part[np.isin(part, parts)] = part[start + row]
    return kept


def _may_join(
    groups: UnionFind,
    skus: Sequence[str],
    first: NDArray[np.int32],
    second: NDArray[np.int32],
) -> NDArray[np.bool_]:
    """Whether each pair is of two sets that are not kept apart for good, shape (n,)."""
    roots = [groups.find(sku) for sku in skus]
    number_of = {root: number for number, root in enumerate(dict.fromkeys(roots))}
    numbers = np.array([number_of[root] for root in roots], np.int64)
    one, other = numbers[first], numbers[second]
    may_join: NDArray[np.bool_] = one != other
    apart = [
        number * len(number_of) + number_of[each]
        for root, number in number_of.items()
        for each in groups.apart_from(root)
        if each in number_of
    ]
    may_join &= ~np.isin(one * len(number_of) + other, np.array(apart, np.int64))
    labels = [groups.labels_of(root) for root in number_of]
    if all(len(each) <= 1 for each in labels):  # else sets with several labels may join two others
        label_of = {label: n for n, label in enumerate(sorted(frozenset().union(*labels)))}
        known = np.array([label_of[min(each)] if each else -1 for each in labels], np.int64)
        may_join &= (known[one] == known[other]) | (known[one] < 0) | (known[other] < 0)
    return may_join
