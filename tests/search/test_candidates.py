"""Candidates: when the first k are complete, for any distances."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.db.queries.nearest import Candidates, is_complete
from app.types import Hit

distances = st.floats(0, 2, allow_nan=False)


@given(st.lists(distances, max_size=40), st.integers(0, 40), st.integers(1, 10))
def test_complete_candidates_are_right_whatever_was_not_fetched(
    all_distances: list[float], looked: int, k: int
) -> None:
    ordered = sorted(all_distances)
    seen, unseen = ordered[:looked], ordered[looked:]
    seen_to = seen[-1] if unseen and seen else (0.0 if unseen else None)
    candidates = Candidates(tuple(Hit(n, n, d) for n, d in enumerate(seen)), seen_to)
    if is_complete(candidates, k):
        assert seen[:k] == ordered[:k]
        assert all(d > seen[k - 1] for d in unseen) if unseen else True


def test_a_tie_with_an_unfetched_picture_is_not_complete() -> None:
    assert not is_complete(Candidates((Hit(2, 2, 0.5),), 0.5), 1)


def test_fewer_than_k_are_complete_only_when_all_were_fetched() -> None:
    assert not is_complete(Candidates((Hit(1, 1, 0.1),), 0.5), 2)
    assert is_complete(Candidates((Hit(1, 1, 0.1),), None), 2)
