"""`support.scheduling`: each process of a parallel run collects all tests, its share first."""

from __future__ import annotations

import pytest

from support.paths import REPO
from support.scheduling import LONGEST_FIRST, own_share_first

TESTS = REPO / "tests"


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_each_process_collects_all_files_and_begins_with_others(count: int) -> None:
    shares = [own_share_first(TESTS, number, count) for number in range(count)]
    holding = {str(TESTS / path.relative_to(TESTS).parts[0]) for path in TESTS.rglob("test_*.py")}
    assert all(len(share) == len(holding) and set(share) == holding for share in shares)
    assert len({share[0] for share in shares}) >= min(count, 3)


def test_the_files_that_are_started_first_exist() -> None:
    assert [name for name in LONGEST_FIRST if not (REPO / name).is_file()] == []
