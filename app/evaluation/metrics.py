"""Quality metrics from the ranks of labelled queries, with confidence intervals; pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

QueryKey = tuple[str, str]
"""Name of a query in its file, and the sku it expects."""

Ranks = Mapping[QueryKey, int | None]
"""Rank of the expected product of each query, from 1; None if it is not among the first ten."""

DEPTHS = (1, 5, 10)
"""Values of k for recall@k."""

Z_95 = 1.959964
"""Standard normal quantile of a two-sided interval of 95 %."""


@dataclass(frozen=True, slots=True)
class QueryOutcome:
    """Result of one query: the rank of its product, None if it is not among the first ten.

    `category` is that of the expected product. `folded` counts products that were folded into
    others, and `dropped` those left out as near-duplicates. `ms` is the time from bytes to result,
    without loading the model.
    """

    query: str
    expected_sku: str
    category: str | None
    rank: int | None
    ms: float
    folded: int = 0
    dropped: int = 0
    found: tuple[str, ...] = ()
    """The skus of the matches, best first."""

    @property
    def key(self) -> QueryKey:
        """Identifies the query."""
        return self.query, self.expected_sku


@dataclass(frozen=True, slots=True)
class CategoryFigures:
    """Metrics of the queries whose product has this category, or none (None)."""

    category: str | None
    queries: int
    recall_at_1: float
    recall_at_10: float
    mrr: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Quality and speed over `queries` query photos.

    `recall_at_k` is the share of queries whose expected product is among the first k (0 to 1), with
    the bounds of its 95 % confidence interval; `mrr` is the mean of 1/rank within the first ten.
    Times are milliseconds. `folded_per_page` and `dropped_per_page` are means. `filtered_out`
    counts queries whose product the filter excludes, and `unreadable` those that failed; neither
    are part of the other metrics.
    """

    queries: int
    recall_at_1: float
    recall_at_1_low: float
    recall_at_1_high: float
    recall_at_5: float
    recall_at_5_low: float
    recall_at_5_high: float
    recall_at_10: float
    recall_at_10_low: float
    recall_at_10_high: float
    mrr: float
    p50_ms: float
    p95_ms: float
    folded_per_page: float
    dropped_per_page: float
    filtered_out: int
    unreadable: int
    categories: tuple[CategoryFigures, ...]
    outcomes: tuple[QueryOutcome, ...]

    def as_dict(self) -> dict[str, Any]:
        """All fields by name; `read_ranks` parses the outcomes."""
        return asdict(self)

    @property
    def ranks(self) -> Ranks:
        """The ranks by query."""
        return {outcome.key: outcome.rank for outcome in self.outcomes}


@dataclass(frozen=True, slots=True)
class RunDifference:
    """The first of two runs over the same queries, compared with the second.

    `recall_at_k` are differences of shares (-1 to 1, above 0: the first is better) with the bounds
    of their 95 % confidence intervals for paired samples. `better`, `worse` and `same` count
    queries by rank.
    """

    queries: int
    better: int
    worse: int
    same: int
    recall_at_1: float
    recall_at_1_low: float
    recall_at_1_high: float
    recall_at_5: float
    recall_at_5_low: float
    recall_at_5_high: float
    recall_at_10: float
    recall_at_10_low: float
    recall_at_10_high: float
    mrr: float

    def as_dict(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


def summarize(outcomes: Sequence[QueryOutcome], filtered_out: int, unreadable: int) -> Evaluation:
    """The metrics of at least one outcome."""
    ranks = _as_array([outcome.rank for outcome in outcomes])
    times = [outcome.ms for outcome in outcomes]
    shares: dict[str, float] = {}
    for depth in DEPTHS:
        hits = int((ranks <= depth).sum())
        low, high = wilson(hits, len(outcomes))
        name = f"recall_at_{depth}"
        shares |= {name: hits / len(outcomes), f"{name}_low": low, f"{name}_high": high}
    return Evaluation(
        queries=len(outcomes),
        **shares,
        mrr=float((1 / ranks).mean()),
        p50_ms=round(float(np.percentile(times, 50)), 3),
        p95_ms=round(float(np.percentile(times, 95)), 3),
        folded_per_page=float(np.mean([outcome.folded for outcome in outcomes])),
        dropped_per_page=float(np.mean([outcome.dropped for outcome in outcomes])),
        filtered_out=filtered_out,
        unreadable=unreadable,
        categories=_categories(outcomes),
        outcomes=tuple(outcomes),
    )


def compare_ranks(ours: Ranks, theirs: Ranks) -> RunDifference:
    """Compare the ranks of the queries that two runs have in common, at least one."""
    both = sorted(ours.keys() & theirs.keys())
    first, second = (_as_array([run[query] for query in both]) for run in (ours, theirs))
    shares: dict[str, float] = {}
    for depth in DEPTHS:
        hit, other_hit = first <= depth, second <= depth
        low, high = newcombe(
            int((hit & other_hit).sum()), int((hit & ~other_hit).sum()),
            int((~hit & other_hit).sum()), int((~hit & ~other_hit).sum()),
        )  # fmt: skip
        name = f"recall_at_{depth}"
        gain = float(hit.mean() - other_hit.mean())
        shares |= {name: gain, f"{name}_low": low, f"{name}_high": high}
    return RunDifference(
        queries=len(both),
        better=int((first < second).sum()),
        worse=int((first > second).sum()),
        same=int((first == second).sum()),
        **shares,
        mrr=float((1 / first - 1 / second).mean()),
    )


def overlap(ours: Evaluation, theirs: Evaluation) -> float:
    """The mean share (0 to 1) of the matches of a query that two runs have in common."""
    other = {outcome.key: set(outcome.found) for outcome in theirs.outcomes}
    shares = [
        len(set(outcome.found) & other[outcome.key])
        / max(len(outcome.found), len(other[outcome.key]), 1)
        for outcome in ours.outcomes
        if outcome.key in other
    ]
    return float(np.mean(shares)) if shares else 0.0


def read_ranks(document: Any) -> Ranks:
    """The ranks in a document of `Evaluation.as_dict`; raises ValueError for anything else."""
    try:
        return {
            (str(each["query"]), str(each["expected_sku"])): _rank(each["rank"])
            for each in document["outcomes"]
        }
    except (KeyError, TypeError) as exc:
        raise ValueError("it holds no outcomes") from exc


def _rank(value: Any) -> int | None:
    if value is None or (type(value) is int and 1 <= value <= DEPTHS[-1]):
        return value
    raise ValueError(f"{value!r} is no rank")


def worst(outcomes: Sequence[QueryOutcome], count: int) -> list[QueryOutcome]:
    """The outcomes with the lowest ranks or without one; none whose product came first."""
    bad = [outcome for outcome in outcomes if outcome.rank != 1]
    return sorted(bad, key=lambda each: -(each.rank or math.inf))[:count]


def most_different(
    ours: Sequence[QueryOutcome], theirs: Sequence[QueryOutcome], count: int
) -> list[tuple[QueryOutcome, QueryOutcome]]:
    """The queries that two runs answer most differently, as pairs of outcomes.

    Sorted by the difference of 1/rank, so that 1 and 2 differ more than 9 and 10; then by how bad
    both ranks are; then by how few matches they have in common. Pairs with equal matches and the
    product first are left out.
    """
    other = {outcome.key: outcome for outcome in theirs}
    pairs = [(each, other[each.key]) for each in ours if each.key in other]
    different = [
        (one, two) for one, two in pairs
        if one.rank != 1 or two.rank != 1 or one.found != two.found
    ]  # fmt: skip
    return sorted(different, key=_likeness)[:count]


def _likeness(pair: tuple[QueryOutcome, QueryOutcome]) -> tuple[float, float, int]:
    one, two = (0.0 if each.rank is None else 1 / each.rank for each in pair)
    return -abs(one - two), one + two, len({*pair[0].found} & {*pair[1].found})


def _as_array(ranks: Sequence[int | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([np.inf if rank is None else rank for rank in ranks], dtype=np.float64)


def _categories(outcomes: Sequence[QueryOutcome]) -> tuple[CategoryFigures, ...]:
    """The category with the most queries first."""
    groups: dict[str | None, list[int | None]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.category, []).append(outcome.rank)
    categories = [_category(category, _as_array(ranks)) for category, ranks in groups.items()]
    return tuple(sorted(categories, key=lambda each: (-each.queries, each.category or "")))


def _category(
    category: str | None, ranks: np.ndarray[Any, np.dtype[np.float64]]
) -> CategoryFigures:
    return CategoryFigures(
        category,
        len(ranks),
        float((ranks <= 1).mean()),
        float((ranks <= 10).mean()),
        float((1 / ranks).mean()),
    )


def wilson(hits: int, queries: int) -> tuple[float, float]:
    """The bounds of the 95 % score interval of a share (E. B. Wilson, JASA 22, 1927).

    Unlike the share plus or minus its standard error it stays within 0 to 1 and is accurate for few
    queries and for shares near 0 and 1.
    """
    share, spread = hits / queries, Z_95 * Z_95 / queries
    middle = share + spread / 2
    half = Z_95 * math.sqrt(share * (1 - share) / queries + spread / (4 * queries))
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))


def newcombe(both: int, ours: int, theirs: int, neither: int) -> tuple[float, float]:
    """The bounds of the 95 % interval of the difference of two shares of the same queries.

    The arguments count queries with a hit in both runs, only ours, only theirs, or neither. Method
    10 of R. Newcombe, Statistics in Medicine 17, 2635 (1998): Wilson's intervals, combined with the
    correlation of the two runs. The interval is wide for few queries, also if the runs never
    differ.
    """
    queries = both + ours + theirs + neither
    first, second = (both + ours) / queries, (both + theirs) / queries
    low_1, high_1 = wilson(both + ours, queries)
    low_2, high_2 = wilson(both + theirs, queries)
    phi = _phi(both, ours, theirs, neither)
    below, above = first - low_1, high_2 - second
    down = math.sqrt(max(0.0, below**2 - 2 * phi * below * above + above**2))
    over, under = high_1 - first, second - low_2
    up = math.sqrt(max(0.0, over**2 - 2 * phi * over * under + under**2))
    return max(-1.0, first - second - down), min(1.0, first - second + up)


def _phi(both: int, ours: int, theirs: int, neither: int) -> float:
    """The correlation of the two runs, with the continuity correction of Newcombe's method."""
    margins = (both + ours) * (theirs + neither) * (both + theirs) * (ours + neither)
    if not margins:
        return 0.0
    product = float(both * neither - ours * theirs)
    if product > 0:
        product = max(0.0, product - (both + ours + theirs + neither) / 2)
    return product / math.sqrt(margins)
