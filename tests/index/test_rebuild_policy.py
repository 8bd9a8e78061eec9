"""`app.index.rebuild_policy`: when an index is built again, by its changes, age and failures."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from hypothesis import given
from hypothesis import strategies as some

from app.config import Settings
from app.index.rebuild_policy import (
    IndexObservation,
    RebuildDecision,
    RebuildRules,
    backoff,
    decide,
    most_changes,
)

RULES = RebuildRules(
    share=0.1, cost=0.5, max_rows=1000, age_s=60, min_interval_s=10, backoff_s=2, backoff_max_s=100
)


def test_without_an_index_any_row_causes_a_build() -> None:
    assert decide(IndexObservation(1, None), RULES) == RebuildDecision("there is no index yet", 0.0)
    assert decide(IndexObservation(0, None), RULES) == RebuildDecision(None, inf)


def test_changes_above_the_share_of_the_index_cause_a_build() -> None:
    assert decide(IndexObservation(10, 100), RULES).reason is None
    assert (
        decide(IndexObservation(11, 100), RULES).reason == "11 rows changed since an index of 100"
    )


def test_changes_cause_a_build_by_what_they_cost_where_that_is_known() -> None:
    few = RebuildRules.from_settings(Settings())
    million = IndexObservation(5_001, 10**6)
    assert decide(million, few).reason == "5001 rows changed since an index of 1000000"
    assert decide(replace(million, delta_cost=0.5), few).reason is None
    slow = decide(replace(million, changed_rows=2_000, delta_cost=0.51), few)
    assert slow.reason == "2000 changed rows lengthen a search by 51%"
    assert decide(IndexObservation(5, 100, delta_cost=0.0), few).reason is None
    assert decide(IndexObservation(11, 100, delta_cost=0.0), few).reason is not None


def test_an_edit_an_hour_causes_a_build_a_day() -> None:
    """Thirty days on a clock of this test, observed every minute."""
    few, builds, built_at, changed = RebuildRules.from_settings(Settings()), 0, 0.0, 0
    for minute in range(30 * 24 * 60):
        now = 60.0 * minute
        changed += minute % 60 == 0
        seen = IndexObservation(
            changed, 10**6, now - built_at, now - built_at, last_build_took_s=600, delta_cost=0.0
        )
        if decide(seen, few).reason is not None:
            builds, built_at, changed = builds + 1, now, 0
    assert builds == 29


def test_an_index_is_rebuilt_before_searches_refuse_its_delta() -> None:
    assert decide(IndexObservation(1000, 10**9), RULES).reason is None
    assert decide(IndexObservation(1001, 10**9), RULES).reason is not None
    assert RebuildRules.from_settings(Settings(max_delta_rows=20_000)).max_rows == 10_000


def test_a_smaller_delta_is_built_in_when_the_index_is_old() -> None:
    assert decide(IndexObservation(1, 100, build_age_s=59), RULES) == RebuildDecision(None, 1.0)
    assert decide(IndexObservation(1, 100, build_age_s=60), RULES).reason is not None
    assert decide(IndexObservation(0, 100, build_age_s=10**6), RULES) == RebuildDecision(None, inf)


def test_builds_keep_the_minimum_interval() -> None:
    assert decide(IndexObservation(50, 100, since_last_build_s=4), RULES) == RebuildDecision(
        None, 6.0
    )
    assert decide(IndexObservation(50, 100, since_last_build_s=10), RULES).reason is not None
    assert decide(
        IndexObservation(50, 100, since_last_build_s=10, last_build_took_s=25), RULES
    ) == RebuildDecision(None, 15.0)


def test_failures_double_the_wait_up_to_a_limit() -> None:
    assert [backoff(n, RULES) for n in (0, 1, 2, 3, 7, 10**9)] == [0, 2, 4, 8, 100, 100]
    assert decide(
        IndexObservation(50, 100, since_last_build_s=0, failures=4), RULES
    ) == RebuildDecision(None, 16.0)


rules = some.builds(
    RebuildRules,
    share=some.floats(0.001, 10),
    cost=some.floats(0.001, 10),
    max_rows=some.floats(0, 1e6),
    age_s=some.floats(0, 1e6),
    min_interval_s=some.floats(0, 1e6),
    backoff_s=some.floats(0.001, 1e4),
    backoff_max_s=some.floats(0.001, 1e6),
)


observations = some.builds(
    IndexObservation,
    changed_rows=some.integers(0, 10**7),
    index_rows=some.none() | some.integers(0, 10**7),
    build_age_s=some.floats(0, 1e7) | some.just(inf),
    since_last_build_s=some.none() | some.floats(0, 1e7) | some.just(inf),
    last_build_took_s=some.floats(0, 1e5),
    failures=some.integers(0, 10**6),
    delta_cost=some.none() | some.floats(0, 100),
)


@given(observations, rules)
def test_a_decision_has_either_a_reason_or_a_wait(
    seen: IndexObservation, rules: RebuildRules
) -> None:
    decision = decide(seen, rules)
    assert (decision.reason is not None) == (decision.wait_s == 0)


@given(observations, rules)
def test_a_build_is_due_after_the_wait(seen: IndexObservation, rules: RebuildRules) -> None:
    wait_s = decide(seen, rules).wait_s
    if wait_s == inf:
        assert seen.changed_rows == 0
        return
    later = 1.000001 * wait_s + 1e-3
    since_s = None if seen.since_last_build_s is None else seen.since_last_build_s + later
    after = replace(seen, build_age_s=seen.build_age_s + later, since_last_build_s=since_s)
    assert decide(after, rules).reason is not None


@given(observations, rules, some.integers(1, 1000))
def test_more_changes_never_lengthen_the_wait(
    seen: IndexObservation, rules: RebuildRules, more: int
) -> None:
    changed = replace(seen, changed_rows=seen.changed_rows + more)
    assert decide(changed, rules).wait_s <= decide(seen, rules).wait_s


@given(observations, rules)
def test_no_build_is_due_within_the_minimum_interval(
    seen: IndexObservation, rules: RebuildRules
) -> None:
    if seen.since_last_build_s is not None and seen.since_last_build_s < max(
        rules.min_interval_s, backoff(seen.failures, rules)
    ):
        assert decide(seen, rules).reason is None


def test_the_most_changes_are_the_lesser_of_share_and_limit() -> None:
    assert (most_changes(100, RULES), most_changes(10**6, RULES)) == (10, 1000)
