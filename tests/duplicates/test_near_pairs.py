"""Many pairs are joined as if they were joined one by one, and without a step for each."""

from __future__ import annotations

from itertools import combinations
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.duplicates import near_pairs
from app.duplicates.near_pairs import NearPairs, join_nearest_first
from app.duplicates.union_find import UnionFind

SKUS = tuple("ABCDEFGHIJ")
ALL_PAIRS = list(combinations(range(len(SKUS)), 2))
two_skus = st.sampled_from([(SKUS[a], SKUS[b]) for a, b in ALL_PAIRS])
distances = st.lists(
    st.sampled_from([0.0, 0.1, 0.2, 0.3]), min_size=len(ALL_PAIRS), max_size=len(ALL_PAIRS)
)


def constrained(
    same: list[tuple[str, str]], apart: list[tuple[str, str]], labels: dict[str, str]
) -> UnionFind:
    groups = UnionFind()
    for a, b in same:
        groups.join(a, b)
    for a, b in apart:
        groups.keep_apart(a, b)
    for sku, label in labels.items():
        groups.label(sku, label)
    return groups


def sets(groups: UnionFind) -> set[frozenset[str]]:
    return {
        frozenset(each for each in SKUS if groups.find(each) == groups.find(sku)) for sku in SKUS
    }


@given(
    distances,
    st.lists(two_skus, max_size=2),
    st.lists(two_skus, max_size=4),
    st.dictionaries(st.sampled_from(SKUS), st.sampled_from("123"), max_size=6),
)
def test_the_sets_are_those_of_joining_one_by_one(
    drawn: list[float],
    same: list[tuple[str, str]],
    apart: list[tuple[str, str]],
    labels: dict[str, str],
) -> None:
    one_by_one = constrained(same, apart, labels)
    for _, a, b in sorted((each, a, b) for each, (a, b) in zip(drawn, ALL_PAIRS, strict=True)):
        one_by_one.join(SKUS[a], SKUS[b])
    groups = constrained(same, apart, labels)
    first, second = np.array(ALL_PAIRS, np.int32).T
    with patch.object(near_pairs, "FIRST_PAIRS", 2):
        join_nearest_first(groups, SKUS, [NearPairs(np.array(drawn), second, first)])
    assert sets(groups) == sets(one_by_one)


@pytest.mark.parametrize("labelled", [False, True])
def test_pairs_that_join_nothing_are_not_visited(labelled: bool) -> None:
    """Two products that differ among many that are alike, or all with labels of their own."""
    count = 400
    skus = [f"P{n:03}" for n in range(count)]
    labels = {sku: sku for sku in skus} if labelled else {}
    groups = constrained([], [(skus[0], skus[1])], labels)
    visited: list[tuple[str, str]] = []
    join = UnionFind.join
    first, second = (each.astype(np.int32) for each in np.triu_indices(count, 1))
    pairs = NearPairs(np.random.default_rng(1).random(len(first)).round(6), first, second)
    with patch.object(
        UnionFind, "join", lambda own, a, b: visited.append((a, b)) or join(own, a, b)
    ):
        join_nearest_first(groups, skus, [pairs])
    assert len({groups.find(sku) for sku in skus}) == (count if labelled else 2)
    assert len(visited) < len(first) / 10
