"""Fits the best similarity below which a photo has no close match; pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.types import CloseCut

MIN_PRESENT = 40
"""Minimum number of photos of products that are in the catalogue."""

MIN_ABSENT = 20
"""Minimum number of photos of products that are not."""

FALSE_ALARMS = 0.05
"""Largest share of photos of present products that have no close match."""

CERTAINTY = 0.95
"""Probability that no larger share of further photos is below a cut-off, by the ranks alone."""

MIN_RIGHT = 0.9
"""Required share of right ones among the photos without a close match, for equal numbers of present
and absent products."""

FOLDS = 5

_TRIED = (0.05, 0.04, 0.03, 0.02, 0.01)
_STEPS = 50
_ENOUGH = 1e-9

Similarities = NDArray[np.float64]
Names = NDArray[np.str_]
Groups = NDArray[np.str_] | NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class AskedPhotos:
    """Photos asked against a catalogue, arrays of shape (n,).

    `similarities` are the best cosine similarities (-1 to 1), `matched` the categories of the
    matches that have them, `categories` those of the products shown (both '' if unknown), and
    `products` the ids of the products shown.
    """

    similarities: Similarities
    matched: Names
    categories: Names
    products: NDArray[np.int64]

    def matched_in(self, category: str) -> AskedPhotos:
        """Those whose best match is of a category."""
        chosen = self.matched == category
        return AskedPhotos(
            self.similarities[chosen], self.matched[chosen], self.categories[chosen],
            self.products[chosen],
        )  # fmt: skip


def fit_close_cuts(present: AskedPhotos, absent: AskedPhotos) -> Mapping[str | None, CloseCut]:
    """The cut-off of the whole catalogue (None), and those of the categories that have one.

    The cut-off of a category is for photos whose best match is of that category, and is kept where
    that of the catalogue serves them badly (`_needs_own`). That of the catalogue is cross-fitted
    over the categories of the products shown, the others over products.
    """
    cuts: dict[str | None, CloseCut] = {
        None: fit_close_cut(
            present.similarities, absent.similarities, present.categories, absent.categories
        )
    }
    for category in np.unique(present.matched[present.matched != ""]).tolist():
        yes, no = present.matched_in(category), absent.matched_in(category)
        cut = fit_close_cut(yes.similarities, no.similarities, yes.products, no.products)
        if _needs_own(cut, cuts[None], yes.similarities, no.similarities):
            cuts[category] = cut
    return cuts


def _needs_own(
    own: CloseCut, general: CloseCut, present: Similarities, absent: Similarities
) -> bool:
    """Whether a category needs its own cut-off: there is no general one, or its share of false
    alarms in the category is two standard errors above FALSE_ALARMS, or the own one is higher and
    detects more. A few dozen photos alone place a quantile of 5 % less well than those of all
    categories."""
    if own.similarity is None or general.similarity is None:
        return own.similarity is not None
    error = math.sqrt(FALSE_ALARMS * (1 - FALSE_ALARMS) / len(present))
    too_many = float(np.mean(present < general.similarity)) > FALSE_ALARMS + 2 * error
    detects_more = (own.detected or 0.0) > float(np.mean(absent < general.similarity))
    return too_many or (own.similarity > general.similarity and detects_more)


def fit_close_cut(
    present: Similarities, absent: Similarities, present_groups: Groups, absent_groups: Groups
) -> CloseCut:
    """The cut-off for best similarities of present (n,) and absent (m,) products.

    It is the greatest limit of a few shares of the present (`_limit`) with at most FALSE_ALARMS of
    the present and so many of the absent below it that MIN_RIGHT of those below are absent. Both
    are cross-fitted: groups, of shapes (n,) and (m,), are divided into FOLDS, and each is measured
    with the limit of the other folds.

    There is no cut-off without enough photos or groups, or if no limit does.
    """
    counts = len(present), len(absent)
    unknown = CloseCut(None, None, None, *counts, None, None)
    if counts[0] < MIN_PRESENT or counts[1] < MIN_ABSENT:
        return unknown
    folds, absent_folds = _folds(present_groups, absent_groups)
    if len(np.unique(folds)) < 2:
        return unknown
    for share in _TRIED:
        alarms, found = [], []
        for fold in range(FOLDS):
            if (folds != fold).any():
                cut = _limit(present[folds != fold], share)
                alarms.append(present[folds == fold] < cut)
                found.append(absent[absent_folds == fold] < cut)
        false_alarms, detected = (float(np.concatenate(each).mean()) for each in (alarms, found))
        if false_alarms <= FALSE_ALARMS and detected * (1 - MIN_RIGHT) > false_alarms * MIN_RIGHT:
            midpoint, width = fit_probability(present, absent)
            if width <= 0:
                return unknown
            cut = _limit(present, share)
            return CloseCut(cut, midpoint, width, *counts, detected, false_alarms)
    return unknown


def why_no_cut(cut: CloseCut) -> str | None:
    """Why a fitted cut-off has no similarity; None if it has one."""
    if cut.similarity is not None:
        return None
    if cut.present < MIN_PRESENT:
        return f"{cut.present} photos of products could be asked, at least {MIN_PRESENT} are needed"
    if cut.absent < MIN_ABSENT:
        return (
            f"{cut.absent} photos could be asked without the category of their product, at least "
            f"{MIN_ABSENT} are needed, of two or more categories"
        )
    return (
        "no similarity tells products of absent categories from present ones at "
        f"{FALSE_ALARMS:.0%} false alarms"
    )


def fit_probability(present: Similarities, absent: Similarities) -> tuple[float, float]:
    """Midpoint and width of the probability of presence, 1 / (1 + exp((midpoint - s) / width)).

    Logistic regression by Newton's method, with equal weight of both kinds, and targets a little
    inside 0 and 1, so that the width is finite where the kinds do not overlap (Platt,
    "Probabilistic Outputs for Support Vector Machines", 1999). The width is negative where the
    absent are more similar than the present.
    """
    n, m = len(present), len(absent)
    similarities = np.concatenate([present, absent])
    mean, scale = similarities.mean(), similarities.std()
    rows = np.stack([(similarities - mean) / scale, np.ones(n + m)], axis=1)
    targets = np.repeat([(n + 1) / (n + 2), 1 / (m + 2)], [n, m])
    weights = np.repeat([1 / n, 1 / m], [n, m])

    def loss(parameters: NDArray[np.float64]) -> float:
        exponents = rows @ parameters
        return float(weights @ (np.logaddexp(0, exponents) - targets * exponents))

    parameters = np.zeros(2)
    for _ in range(_STEPS):
        probabilities = 1 / (1 + np.exp(-rows @ parameters))
        gradient = rows.T @ (weights * (probabilities - targets))
        spread = weights * probabilities * (1 - probabilities)
        step = np.linalg.solve(rows.T @ (rows * spread[:, None]) + 1e-12 * np.eye(2), gradient)
        while loss(parameters - step) > loss(parameters) and np.abs(step).max() > _ENOUGH:
            step /= 2
        parameters = parameters - step
        if np.abs(step).max() <= _ENOUGH:
            break
    slope, offset = parameters
    return float(mean - scale * offset / slope), float(scale / slope)


def _limit(similarities: Similarities, share: float) -> float:
    """The similarity that with CERTAINTY at most a share of further photos of the same kind does
    not reach, whatever their distribution; of too few, the least.

    The share below the one of rank r of n is above `share` with the probability that fewer than r
    of n are below the quantile of `share`: a binomial distribution (Wilks, "Determination of Sample
    Sizes for Setting Tolerance Limits", 1941).
    """
    count = len(similarities)
    rank, at_most = 0, _chance(0, count, share)
    while at_most <= 1 - CERTAINTY:
        rank += 1
        at_most += _chance(rank, count, share)
    rank = max(1, rank)
    return float(np.partition(similarities, rank - 1)[rank - 1])


def _chance(successes: int, count: int, share: float) -> float:
    """The binomial probability of so many successes."""
    ways = math.lgamma(count + 1) - math.lgamma(successes + 1) - math.lgamma(count - successes + 1)
    rest = count - successes
    return math.exp(ways + successes * math.log(share) + rest * math.log1p(-share))


def _folds(present: Groups, absent: Groups) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The fold of each photo, equal for equal groups."""
    numbers = np.unique(np.concatenate([present, absent]), return_inverse=True)[1] % FOLDS
    return numbers[: len(present)], numbers[len(present) :]
