"""From the ranks of labelled queries to figures: shares with their intervals, and comparisons.

Pure: plain numbers in, plain numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Z = 1.959964
"""Standard normal quantile of a two-sided interval of 95 %."""

RESAMPLES = 2000
DEPTHS = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one query: the rank of its product (None: not among the first ten).

    `category` is the expected product's. `folded` products came inside others on the page and
    `dropped` were left out as near-duplicates. `ms` counts from bytes to result, without loading.
    """

    query: str
    expected_sku: str
    category: str | None
    rank: int | None
    ms: float
    folded: int = 0
    dropped: int = 0
    found: tuple[str, ...] = ()
    """The skus that came, best first."""

    @property
    def key(self) -> str:
        """What tells this query from others."""
        return _key(self.query, self.expected_sku)


@dataclass(frozen=True, slots=True)
class CategoryFigures:
    """The figures of the queries whose product is of one category (None: of none)."""

    category: str | None
    queries: int
    recall_at_1: float
    recall_at_10: float
    mrr: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Quality and speed over `queries` query photos.

    `recall_at_k` is the share of queries whose expected product is among the first k (0 to 1), with
    the ends of its 95 % interval; `mrr` the mean of 1/rank within the first ten. Times are
    milliseconds. `folded_per_page` and `dropped_per_page` are means. `filtered_out` queries expect
    a product the filter leaves out, and `unreadable` ones could not be asked; neither counts in
    the shares.
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
    outcomes: tuple[Outcome, ...]

    def as_dict(self) -> dict[str, Any]:
        """Everything by name; `read_ranks` reads the outcomes back."""
        return asdict(self)

    @property
    def ranks(self) -> dict[str, int | None]:
        """The rank that each query gave its product."""
        return {outcome.key: outcome.rank for outcome in self.outcomes}


@dataclass(frozen=True, slots=True)
class Difference:
    """Two runs over the same queries: how the first does beside the second.

    `recall_at_k` are differences of shares (-1 to 1, above 0: the first is better) with the ends of
    their 95 % intervals, from pairs of answers to one query. `better`, `worse` and `same` count
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
        """The figures by name."""
        return asdict(self)


def figures(outcomes: Sequence[Outcome], filtered_out: int, unreadable: int) -> Evaluation:
    """The figures of at least one outcome."""
    places = _places([outcome.rank for outcome in outcomes])
    times = [outcome.ms for outcome in outcomes]
    shares: dict[str, float] = {}
    for depth in DEPTHS:
        found = int((places <= depth).sum())
        low, high = wilson(found, len(outcomes))
        name = f"recall_at_{depth}"
        shares |= {name: found / len(outcomes), f"{name}_low": low, f"{name}_high": high}
    return Evaluation(
        queries=len(outcomes),
        **shares,
        mrr=float((1 / places).mean()),
        p50_ms=round(float(np.percentile(times, 50)), 3),
        p95_ms=round(float(np.percentile(times, 95)), 3),
        folded_per_page=float(np.mean([outcome.folded for outcome in outcomes])),
        dropped_per_page=float(np.mean([outcome.dropped for outcome in outcomes])),
        filtered_out=filtered_out,
        unreadable=unreadable,
        categories=_categories(outcomes),
        outcomes=tuple(outcomes),
    )


def wilson(found: int, asked: int) -> tuple[float, float]:
    """The ends of the 95 % score interval of a share (E. B. Wilson, JASA 22, 1927).

    Unlike the share plus or minus its standard error it stays within 0 to 1 and is right for few
    queries and for shares near 0 and 1.
    """
    share, spread = found / asked, Z * Z / asked
    middle = share + spread / 2
    half = Z * math.sqrt(share * (1 - share) / asked + spread / (4 * asked))
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))


def difference(ours: Mapping[str, int | None], theirs: Mapping[str, int | None]) -> Difference:
    """Compare the ranks of queries that both runs asked; there must be at least one."""
    both = sorted(ours.keys() & theirs.keys())
    here, there = (_places([run[query] for query in both]) for run in (ours, theirs))
    shares: dict[str, float] = {}
    for depth in DEPTHS:
        gained = (here <= depth).astype(float) - (there <= depth)
        low, high = _bootstrap(gained)
        name = f"recall_at_{depth}"
        shares |= {name: float(gained.mean()), f"{name}_low": low, f"{name}_high": high}
    return Difference(
        queries=len(both),
        better=int((here < there).sum()),
        worse=int((here > there).sum()),
        same=int((here == there).sum()),
        **shares,
        mrr=float((1 / here - 1 / there).mean()),
    )


def overlap(ours: Evaluation, theirs: Evaluation) -> float:
    """The mean share (0 to 1) of the products found for a query that both runs found."""
    other = {outcome.key: set(outcome.found) for outcome in theirs.outcomes}
    shares = [
        len(set(outcome.found) & other[outcome.key])
        / max(len(outcome.found), len(other[outcome.key]), 1)
        for outcome in ours.outcomes
        if outcome.key in other
    ]
    return float(np.mean(shares)) if shares else 0.0


def read_ranks(document: Any) -> dict[str, int | None]:
    """The ranks in what `Evaluation.as_dict` made; raises ValueError for anything else."""
    try:
        return {
            _key(each["query"], each["expected_sku"]): None
            if each["rank"] is None
            else int(each["rank"])
            for each in document["outcomes"]
        }
    except (KeyError, TypeError) as exc:
        raise ValueError("it holds no outcomes") from exc


def worst(outcomes: Sequence[Outcome], count: int) -> list[Outcome]:
    """The outcomes whose product came last or not at all; none that came first."""
    bad = [outcome for outcome in outcomes if outcome.rank != 1]
    return sorted(bad, key=lambda each: -(each.rank or math.inf))[:count]


def _key(query: str, expected_sku: str) -> str:
    return f"{query} {expected_sku}"


def _places(ranks: Sequence[int | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([np.inf if rank is None else rank for rank in ranks], dtype=np.float64)


def _bootstrap(gained: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float]:
    """The ends of the 95 % percentile interval of a mean over queries drawn again and again."""
    dice = np.random.default_rng(0)
    drawn = [dice.choice(gained, len(gained)).mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def _categories(outcomes: Sequence[Outcome]) -> tuple[CategoryFigures, ...]:
    """The most asked first."""
    groups: dict[str | None, list[int | None]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.category, []).append(outcome.rank)
    found = [_category(category, _places(ranks)) for category, ranks in groups.items()]
    return tuple(sorted(found, key=lambda each: (-each.queries, each.category or "")))


def _category(
    category: str | None, places: np.ndarray[Any, np.dtype[np.float64]]
) -> CategoryFigures:
    return CategoryFigures(
        category,
        len(places),
        float((places <= 1).mean()),
        float((places <= 10).mean()),
        float((1 / places).mean()),
    )
