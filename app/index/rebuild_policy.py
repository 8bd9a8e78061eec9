"""When to build: a pure function of what was seen and of the operator's rules."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from app.config import Settings


@dataclass(frozen=True, slots=True)
class RebuildRules:
    """What the operator wants; `_s` are seconds, `share` is a part of the index (0.1: a tenth)."""

    share: float
    most_rows: float
    """However large the index: a delta above this is built in."""
    age_s: float
    every_s: float
    backoff_s: float
    backoff_max_s: float

    @classmethod
    def from_settings(cls, settings: Settings) -> RebuildRules:
        """Half the delta that searches put up with leaves the other half for while it is built."""
        return cls(
            share=settings.worker_share,
            most_rows=settings.max_delta_rows / 2,
            age_s=settings.worker_age_s,
            every_s=settings.worker_every_s,
            backoff_s=settings.worker_backoff_s,
            backoff_max_s=settings.worker_backoff_max_s,
        )


@dataclass(frozen=True, slots=True)
class IndexObservation:
    """What a look at the database found; times in seconds."""

    changed_rows: int
    """Embeddings that changed or went since the build; without one, all there are."""
    index_rows: int | None
    """Rows of the build; None without one."""
    build_age_s: float = 0.0
    since_last_s: float | None = None
    """Since the last build of any outcome ended; None if that is not known."""
    last_took_s: float = 0.0
    failures: int = 0
    """Builds in a row that failed, were rejected or did not help."""


@dataclass(frozen=True, slots=True)
class RebuildDecision:
    """Build now, for this reason; or None, and look again in `wait_s` seconds (inf: on change)."""

    reason: str | None
    wait_s: float


def decide(seen: IndexObservation, rules: RebuildRules) -> RebuildDecision:
    """Whether to build now, or in how many seconds that would be due if nothing else changed."""
    reason, due_s = _wish(seen, rules)
    rested = inf if seen.since_last_s is None else seen.since_last_s
    wait_s = max(due_s, rest(seen, rules) - rested, 0.0)
    return RebuildDecision(None, wait_s) if wait_s > 0 else RebuildDecision(reason, 0.0)


def rest(seen: IndexObservation, rules: RebuildRules) -> float:
    """Seconds from the end of a build to the next: building takes at most half of the time."""
    return max(rules.every_s, seen.last_took_s, backoff(seen.failures, rules))


def backoff(failures: int, rules: RebuildRules) -> float:
    """Seconds to wait after so many failures in a row: doubled by each, up to a limit."""
    if failures <= 0:
        return 0.0
    doubled: float = rules.backoff_s * 2.0 ** min(failures - 1, 60)
    return min(doubled, rules.backoff_max_s)


def allowed(index_rows: int, rules: RebuildRules) -> float:
    """Rows that may change before an index of this size is built anew."""
    return min(rules.share * index_rows, rules.most_rows)


def _wish(seen: IndexObservation, rules: RebuildRules) -> tuple[str, float]:
    """Why a build would be good, and in how many seconds."""
    if not seen.changed_rows:
        return "nothing changed", inf
    if seen.index_rows is None:
        return "there is no index yet", 0.0
    if seen.changed_rows > allowed(seen.index_rows, rules):
        return f"{seen.changed_rows} rows changed since an index of {seen.index_rows}", 0.0
    reason = f"the index is older than {rules.age_s:g} s, and {seen.changed_rows} rows changed"
    return reason, max(0.0, rules.age_s - seen.build_age_s)
