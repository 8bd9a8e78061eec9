"""Fits the cut-offs of similarity labels to the distances of labelled pairs; pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from app.types import LABEL_FIELDS, Calibration, CutOff, SimilarityLabel

MIN_PAIRS = 20
"""Minimum number of positive and of negative pairs for a cut-off."""

STRICT_PRECISION = 0.9
"""Required precision of the labels that are facts: same photo, same product."""

WIDEST_PRECISION = 0.8
"""Required precision where "same product" is widened to AGREEING of the pairs."""

AGREEING = 0.97
"""Share of the pairs of one product that "same product" should hold for."""

SAME_PHOTO = 0.001
"""Greatest distance of two identical photos."""

LIKELY_PRECISION = 0.5
"""Required precision of the label that is a judgement: similar."""

FALSE_FIT_RATE = 0.01
"""Probability that a cut-off is fitted although the two kinds of pairs do not differ."""


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """Cosine distance (0 to 2) of two pictures, and whether a label holds for them.

    `category` is that of both products, None where they differ or have none.
    """

    meaning: SimilarityLabel
    holds: bool
    category: str | None
    distance: float


def fit_calibrations(pairs: Sequence[LabelledPair]) -> tuple[Calibration, ...]:
    """The cut-offs of the whole catalogue, then those of categories that have any, by name."""
    by_category: dict[str, list[LabelledPair]] = {}
    for pair in pairs:
        if pair.category is not None:
            by_category.setdefault(pair.category, []).append(pair)
    own = [_row(name, by_category[name]) for name in sorted(by_category)]
    return (_row(None, pairs), *(row for row in own if _has_cut_off(row)))


def fit_cut_off(pairs: ArrayLike, others: ArrayLike, precision: float = LIKELY_PRECISION) -> CutOff:
    """The distance up to which a label holds, from distances (0 to 2) where it does and does not.

    Of the cuts whose balanced precision, tpr / (tpr + fpr), is at least `precision`, the one with
    the greatest Youden's J = tpr - fpr (Youden, "Index for rating diagnostic tests", Cancer 3,
    1950), placed halfway to the next distance. Balanced precision assumes equal numbers of both
    kinds, because the sample does not reflect their numbers in the catalogue. With precision 0.5, J
    is greatest where the densities of the two kinds cross.

    There is no cut-off for fewer than MIN_PAIRS pairs of a kind, or if the greatest J is not
    significant: it is the one-sided two-sample statistic of Kolmogorov and Smirnov, which exceeds
    sqrt(ln(1 / p) / 2 * (n + m) / (n * m)) with probability p (Smirnov, Ann. Math. Stat. 19, 1948).
    """
    positive, negative = _sorted(pairs), _sorted(others)
    n, m = len(positive), len(negative)
    if min(n, m) < MIN_PAIRS:
        return CutOff(None, n, m)
    cuts = np.unique(np.concatenate([positive, negative]))
    tpr = np.searchsorted(positive, cuts, side="right") / n
    fpr = np.searchsorted(negative, cuts, side="right") / m
    youden = np.where(tpr * (1 - precision) >= fpr * precision, tpr - fpr, -np.inf)
    best = int(np.argmax(youden))
    if youden[best] <= math.sqrt(-math.log(FALSE_FIT_RATE) / 2 * (n + m) / (n * m)):
        return CutOff(None, n, m)
    following = cuts[min(best + 1, len(cuts) - 1)]
    return CutOff(float(cuts[best] + (following - cuts[best]) / 2), n, m)


def fit_same_product(pairs: ArrayLike, others: ArrayLike) -> CutOff:
    """The cut-off of "same product", from distances (0 to 2) as of `fit_cut_off`.

    That of STRICT_PRECISION, widened to where AGREEING of all pairs are expected to agree, as far
    as the balanced precision is at least WIDEST_PRECISION: products with the same words fold up to
    it, and few pairs say little about the farthest.
    """
    cut = fit_cut_off(pairs, others, STRICT_PRECISION)
    if cut.distance is None:
        return cut
    positive, negative = _sorted(pairs), _sorted(others)
    cuts = np.unique(np.concatenate([positive, negative]))
    tpr = np.searchsorted(positive, cuts, side="right") / len(positive)
    fpr = np.searchsorted(negative, cuts, side="right") / len(negative)
    precise = cuts[tpr * (1 - WIDEST_PRECISION) >= fpr * WIDEST_PRECISION]
    widest = min(expected_agreement(positive), float(precise[-1]))
    return replace(cut, distance=max(cut.distance, widest))


def expected_agreement(distances: ArrayLike) -> float:
    """The distance that AGREEING of further pairs do not exceed, if those of different photos are
    lognormal: the bound that predicts a further value of a normal distribution,
    mean + t * sd * sqrt(1 + 1 / n), with the quantile t of Student's distribution to first order.
    """
    known = np.asarray(distances, dtype=np.float64)
    logarithms = np.log(known[known > SAME_PHOTO])
    n = len(logarithms)
    exceeding = (1 - AGREEING) * len(known) / max(n, 1)
    if n < 2 or exceeding >= 0.5:
        return float(known.max())
    z = NormalDist().inv_cdf(1 - exceeding)
    t = z * (1 + (z**2 + 1) / (4 * (n - 1)))
    return float(np.exp(logarithms.mean() + t * logarithms.std(ddof=1) * math.sqrt(1 + 1 / n)))


def missing_reason(cut: CutOff) -> str | None:
    """Why a fitted cut-off has no distance; None if it has one."""
    if cut.distance is not None:
        return None
    if min(cut.pairs, cut.others) < MIN_PAIRS:
        side, count = ("for", cut.pairs) if cut.pairs < MIN_PAIRS else ("against", cut.others)
        return f"{count} pairs {side} it, at least {MIN_PAIRS} are needed"
    return "no distance tells the pairs for it from those against it"


def make_monotonic(calibration: Calibration) -> Calibration:
    """The same cut-offs, each raised to at least that of a stronger label.

    Pictures of the same product are similar too, so the weaker label holds as far. This changes no
    label, because the strongest one that holds is used.
    """
    minimum = 0.0
    raised: dict[str, CutOff] = {}
    for field in LABEL_FIELDS.values():
        cut: CutOff = getattr(calibration, field)
        if cut.distance is not None:
            minimum = max(minimum, cut.distance)
            cut = replace(cut, distance=minimum)
        raised[field] = cut
    same_photo, same_product, similar = raised.values()
    return Calibration(calibration.category, same_photo, same_product, similar, calibration.close)


def _row(category: str | None, pairs: Sequence[LabelledPair]) -> Calibration:
    positive, negative = (
        {
            word: [each.distance for each in pairs if each.meaning == word and each.holds == holds]
            for word in LABEL_FIELDS
        }
        for holds in (True, False)
    )
    same_photo = fit_cut_off(positive["same photo"], negative["same photo"], STRICT_PRECISION)
    same_product = fit_same_product(positive["same product"], negative["same product"])
    similar = fit_cut_off(positive["similar"], negative["similar"], LIKELY_PRECISION)
    return make_monotonic(Calibration(category, same_photo, same_product, similar))


def _has_cut_off(row: Calibration) -> bool:
    return any(getattr(row, field).distance is not None for field in LABEL_FIELDS.values())


def _sorted(distances: ArrayLike) -> np.ndarray:
    return np.sort(np.asarray(distances, dtype=np.float64).ravel())
