"""Calibration: from distances of pairs to cut-offs, and from a distance to the word for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from app.types import LABEL_FIELDS, Calibration, CutOff, SimilarityLabel

MINIMUM = 20
"""Pairs of either kind below which no cut-off is fitted."""


SURE = 0.9
"""Precision of a claim that is either true or false: the same photo, the same product."""


LIKELIER = 0.5
"""Precision of a claim that only has to be likelier than not: similar."""


CHANCE = 0.01
"""How often pairs without any difference would still be given a cut-off."""


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """Two pictures with their cosine distance (0 to 2), of which a meaning holds or does not.

    `category` is that of both products, None where they differ or have none.
    """

    meaning: SimilarityLabel
    holds: bool
    category: str | None
    distance: float


def calibrated(pairs: Sequence[LabelledPair]) -> tuple[Calibration, ...]:
    """The cut-offs of the whole catalogue, then of the categories by name that have any."""
    by_category: dict[str, list[LabelledPair]] = {}
    for pair in pairs:
        if pair.category is not None:
            by_category.setdefault(pair.category, []).append(pair)
    own = [_row(name, by_category[name]) for name in sorted(by_category)]
    return (_row(None, pairs), *(row for row in own if _knows(row)))


def fit(pairs: ArrayLike, others: ArrayLike, precision: float = LIKELIER) -> CutOff:
    """The distance up to which a claim holds, from distances (0 to 2) where it does and does not.

    Of the cuts whose balanced precision, tpr / (tpr + fpr), is at least `precision`, the one with
    the greatest Youden's J = tpr - fpr (Youden, "Index for rating diagnostic tests", Cancer 3,
    1950), placed halfway to the next distance. Balanced: as if there were as many pairs of either
    kind, for the sample does not know how many there are. With precision 0.5, J is greatest where
    the densities of the two kinds cross.

    No cut is given for fewer than MINIMUM pairs of a kind, or if a J as great would come about by
    chance: the greatest J of all cuts is the one-sided two-sample statistic of Kolmogorov and
    Smirnov, which exceeds sqrt(ln(1 / p) / 2 * (n + m) / (n * m)) with probability p (Smirnov,
    Ann. Math. Stat. 19, 1948).
    """
    near, far = _sorted(pairs), _sorted(others)
    n, m = len(near), len(far)
    if min(n, m) < MINIMUM:
        return CutOff(None, n, m)
    cuts = np.unique(np.concatenate([near, far]))
    tpr = np.searchsorted(near, cuts, side="right") / n
    fpr = np.searchsorted(far, cuts, side="right") / m
    youden = np.where(tpr * (1 - precision) >= fpr * precision, tpr - fpr, -np.inf)
    best = int(np.argmax(youden))
    if youden[best] <= math.sqrt(-math.log(CHANCE) / 2 * (n + m) / (n * m)):
        return CutOff(None, n, m)
    beyond = cuts[min(best + 1, len(cuts) - 1)]
    return CutOff(float(cuts[best] + (beyond - cuts[best]) / 2), n, m)


def why_not(cut: CutOff) -> str | None:
    """Why there is no distance in a cut-off that was just fitted; None if there is one."""
    if cut.distance is not None:
        return None
    if min(cut.pairs, cut.others) < MINIMUM:
        side, count = ("for", cut.pairs) if cut.pairs < MINIMUM else ("against", cut.others)
        return f"{count} pairs {side} it, at least {MINIMUM} are needed"
    return "no distance tells the pairs for it from those against it"


def in_order(calibration: Calibration) -> Calibration:
    """The same cut-offs, none below that of a stronger claim.

    Pictures of the same product are similar too, so the weaker claim reaches as far. No distance
    is called by another word for it, since the strongest that holds is taken.
    """
    least = 0.0
    raised: dict[str, CutOff] = {}
    for field in LABEL_FIELDS.values():
        cut: CutOff = getattr(calibration, field)
        if cut.distance is not None:
            least = max(least, cut.distance)
            cut = replace(cut, distance=least)
        raised[field] = cut
    return Calibration(calibration.category, **raised)


def _row(category: str | None, pairs: Sequence[LabelledPair]) -> Calibration:
    cuts = {
        field: fit(
            [pair.distance for pair in pairs if pair.meaning == word and pair.holds],
            [pair.distance for pair in pairs if pair.meaning == word and not pair.holds],
            LIKELIER if word == "similar" else SURE,
        )
        for word, field in LABEL_FIELDS.items()
    }
    return in_order(Calibration(category, **cuts))


def _knows(row: Calibration) -> bool:
    return any(getattr(row, field).distance is not None for field in LABEL_FIELDS.values())


def _sorted(distances: ArrayLike) -> np.ndarray:
    return np.sort(np.asarray(distances, dtype=np.float64).ravel())
