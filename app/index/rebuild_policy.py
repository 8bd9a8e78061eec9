"""Decides when to rebuild the index: a pure function of an observation and the operator's rules."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from app.config import Settings

MAX_SHARE = 0.1
"""From this share of changed rows on an index is rebuilt whatever they cost: what was deleted
shortens its nominations, which the cost of the delta does not show."""


@dataclass(frozen=True, slots=True)
class RebuildRules:
    """The operator's rules. Fields ending in `_s` are seconds; `share` is a fraction (0 to 1) of
    the index's rows, `cost` one of the time of a search."""

    share: float
    """Decides while it is not known what the changes cost."""
    cost: float
    """A delta that lengthens a search by more causes a rebuild."""
    max_rows: float
    """A larger delta causes a rebuild whatever the size of the index."""
    age_s: float
    """A changed index that is older is rebuilt."""
    min_interval_s: float
    """Least time between the end of a build and the start of the next."""
    backoff_s: float
    backoff_max_s: float

    @classmethod
    def from_settings(cls, settings: Settings) -> RebuildRules:
        """`max_rows` is half of the delta that searches accept; the other half is left for the
        changes that arrive during the build."""
        return cls(
            share=settings.worker_share,
            cost=settings.worker_cost,
            max_rows=settings.max_delta_rows / 2,
            age_s=settings.worker_age_s,
            min_interval_s=settings.worker_every_s,
            backoff_s=settings.worker_backoff_s,
            backoff_max_s=settings.worker_backoff_max_s,
        )


@dataclass(frozen=True, slots=True)
class IndexObservation:
    """State of the index and its delta; times in seconds."""

    changed_rows: int
    """Embeddings that changed or were deleted since the build; without a build, all of them."""
    index_rows: int | None
    """Rows of the build; None without one."""
    build_age_s: float = 0.0
    since_last_build_s: float | None = None
    """Since the last build ended, with any outcome; None if unknown."""
    last_build_took_s: float = 0.0
    failures: int = 0
    """Consecutive builds that failed, were rejected or did not reduce the delta."""
    delta_cost: float | None = None
    """The share by which the changed embeddings lengthen a search; None if it is not known."""


@dataclass(frozen=True, slots=True)
class RebuildDecision:
    """Build now for `reason`; or, if it is None, decide again in `wait_s` seconds (inf: at the next
    change)."""

    reason: str | None
    wait_s: float


def decide(observation: IndexObservation, rules: RebuildRules) -> RebuildDecision:
    """Whether to build now, or in how many seconds a build is due if nothing else changes."""
    reason, due_s = _due(observation, rules)
    elapsed_s = inf if observation.since_last_build_s is None else observation.since_last_build_s
    wait_s = max(due_s, min_interval(observation, rules) - elapsed_s, 0.0)
    return RebuildDecision(None, wait_s) if wait_s > 0 else RebuildDecision(reason, 0.0)


def min_interval(observation: IndexObservation, rules: RebuildRules) -> float:
    """Seconds from the end of a build to the start of the next: building takes at most half of the
    time."""
    return max(
        rules.min_interval_s, observation.last_build_took_s, backoff(observation.failures, rules)
    )


def backoff(failures: int, rules: RebuildRules) -> float:
    """Seconds to wait after consecutive failures: doubled by each, up to `backoff_max_s`."""
    if failures <= 0:
        return 0.0
    doubled: float = rules.backoff_s * 2.0 ** min(failures - 1, 60)
    return min(doubled, rules.backoff_max_s)


def most_changes(index_rows: int, rules: RebuildRules) -> float:
    """Number of changed rows above which an index of this size is rebuilt whatever they cost."""
    return min(max(rules.share, MAX_SHARE) * index_rows, rules.max_rows)


def _due(observation: IndexObservation, rules: RebuildRules) -> tuple[str, float]:
    """The reason for the next build and the seconds until it is due, ignoring the interval."""
    changed_rows, index_rows = observation.changed_rows, observation.index_rows
    if not changed_rows:
        return "nothing changed", inf
    if index_rows is None:
        return "there is no index yet", 0.0
    cost, most = observation.delta_cost, most_changes(index_rows, rules)
    if cost is None:
        most = min(most, rules.share * index_rows)
    if changed_rows > most:
        return f"{changed_rows} rows changed since an index of {index_rows}", 0.0
    if cost is not None and cost > rules.cost:
        return f"{changed_rows} changed rows lengthen a search by {cost:.0%}", 0.0
    reason = f"the index is older than {rules.age_s:g} s, and {changed_rows} rows changed"
    return reason, max(0.0, rules.age_s - observation.build_age_s)
