"""From the ranks of labelled queries to figures: shares with their intervals, and comparisons.

Pure: plain numbers in, plain numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

QueryKey = tuple[str, str]
"""A query, as its file names it, and the sku it expects."""


Ranks = Mapping[QueryKey, int | None]


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
    def key(self) -> QueryKey:
        """What tells this query from others."""
        return self.query, self.expected_sku


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
    def ranks(self) -> Ranks:
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


def difference(ours: Ranks, theirs: Ranks) -> Difference:
    """Compare the ranks of queries that both runs asked; there must be at least one."""
    both = sorted(ours.keys() & theirs.keys())
    here, there = (_places([run[query] for query in both]) for run in (ours, theirs))
    shares: dict[str, float] = {}
    for depth in DEPTHS:
        found, other = here <= depth, there <= depth
        low, high = newcombe(
            int((found & other).sum()), int((found & ~other).sum()),
            int((~found & other).sum()), int((~found & ~other).sum()),
        )  # fmt: skip
        name = f"recall_at_{depth}"
        gained = float(found.mean() - other.mean())
        shares |= {name: gained, f"{name}_low": low, f"{name}_high": high}
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


def read_ranks(document: Any) -> Ranks:
    """The ranks in what `Evaluation.as_dict` made; raises ValueError for anything else."""
    try:
        return {
            (str(each["query"]), str(each["expected_sku"])): _rank(each["rank"])
            for each in document["outcomes"]
        }
    except (KeyError, TypeError) as exc:
        raise ValueError("it holds no outcomes") from exc


def _rank(found: Any) -> int | None:
    if found is None or (type(found) is int and 1 <= found <= DEPTHS[-1]):
        return found
    raise ValueError(f"{found!r} is no rank")


def worst(outcomes: Sequence[Outcome], count: int) -> list[Outcome]:
    """The outcomes whose product came last or not at all; none that came first."""
    bad = [outcome for outcome in outcomes if outcome.rank != 1]
    return sorted(bad, key=lambda each: -(each.rank or math.inf))[:count]


def apart(
    ours: Sequence[Outcome], theirs: Sequence[Outcome], count: int
) -> list[tuple[Outcome, Outcome]]:
    """The queries that two runs answer most differently, as pairs.

    First by how far apart the product came (in 1/rank, so that 1 and 2 are farther apart than 9 and
    10), then those that both answer badly, then those where other products came with it. None that
    both answer alike with the product first.
    """
    other = {outcome.key: outcome for outcome in theirs}
    pairs = [(each, other[each.key]) for each in ours if each.key in other]
    told = [(one, two) for one, two in pairs if one.rank != 1 or two.rank != 1
            or one.found != two.found]  # fmt: skip
    return sorted(told, key=_likeness)[:count]


def _likeness(pair: tuple[Outcome, Outcome]) -> tuple[float, float, int]:
    one, two = (0.0 if each.rank is None else 1 / each.rank for each in pair)
    return -abs(one - two), one + two, len({*pair[0].found} & {*pair[1].found})


def _places(ranks: Sequence[int | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([np.inf if rank is None else rank for rank in ranks], dtype=np.float64)


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


Z = 1.959964
"""Standard normal quantile of a two-sided interval of 95 %."""


def wilson(found: int, asked: int) -> tuple[float, float]:
    """The ends of the 95 % score interval of a share (E. B. Wilson, JASA 22, 1927).

    Unlike the share plus or minus its standard error it stays within 0 to 1 and is right for few
    queries and for shares near 0 and 1.
    """
    share, spread = found / asked, Z * Z / asked
    middle = share + spread / 2
    half = Z * math.sqrt(share * (1 - share) / asked + spread / (4 * asked))
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))


def newcombe(both: int, ours: int, theirs: int, neither: int) -> tuple[float, float]:
    """The ends of the 95 % interval of the difference of two shares of the same queries.

    From how many both runs found, only ours, only theirs, neither: method 10 of R. Newcombe,
    Statistics in Medicine 17, 2635 (1998), made of Wilson's intervals and the correlation of the
    two runs. It stays in doubt where few queries were asked and where the runs never differ.
    """
    asked = both + ours + theirs + neither
    first, second = (both + ours) / asked, (both + theirs) / asked
    low_1, high_1 = wilson(both + ours, asked)
    low_2, high_2 = wilson(both + theirs, asked)
    phi = _phi(both, ours, theirs, neither)
    below, above = first - low_1, high_2 - second
    down = math.sqrt(max(0.0, below**2 - 2 * phi * below * above + above**2))
    over, under = high_1 - first, second - low_2
    up = math.sqrt(max(0.0, over**2 - 2 * phi * over * under + under**2))
    return max(-1.0, first - second - down), min(1.0, first - second + up)


def _phi(both: int, ours: int, theirs: int, neither: int) -> float:
    """The correlation of the two runs, corrected for continuity as that method does."""
    margins = (both + ours) * (theirs + neither) * (both + theirs) * (ours + neither)
    if not margins:
        return 0.0
    product = float(both * neither - ours * theirs)
    if product > 0:
        product = max(0.0, product - (both + ours + theirs + neither) / 2)
    return product / math.sqrt(margins)
