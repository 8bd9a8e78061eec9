"""How sure a result is: the probability that the product shown is in the catalogue.

Fitted by `bench/search/objects.py` for a model's fingerprint: logistic regression on the best
similarity, one curve for photos that are searched as a whole and one for those with objects. A
model without curves has no confidence, because similarities of two models do not compare.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from app.types import Match, Model, RegionMatches

NO_CLOSE_MATCH = (
    "No close match. Choose the part of the photo that shows the product, add words, or try "
    "another photo."
)


@dataclass(frozen=True, slots=True)
class Curve:
    """Probability 1 / (1 + exp((midpoint - similarity) / width)); below the cosine similarity
    `close` the result says that there is no close match."""

    midpoint: float
    width: float
    close: float

    def confidence(self, similarity: float) -> float:
        """The probability (0 to 1) at a cosine similarity (-1 to 1)."""
        exponent = (self.midpoint - similarity) / self.width
        return 1 / (1 + math.exp(min(max(exponent, -60.0), 60.0)))


@dataclass(frozen=True, slots=True)
class Curves:
    """The curves of a model: for whole photos, and for photos in which objects were searched."""

    whole: Curve
    objects: Curve


SHIPPED: Mapping[str, Curves] = {}
"""The fitted curves, by the fingerprint of the model."""


def curve_for(model: Model, *, objects: bool) -> Curve | None:
    """The curve for a result under a model; None if there is none."""
    curves = SHIPPED.get(model.fingerprint)
    if curves is None:
        return None
    return curves.objects if objects else curves.whole


def judged(
    matches: Sequence[Match], regions: Sequence[RegionMatches], model: Model, *, part: bool
) -> tuple[float | None, bool | None, tuple[RegionMatches, ...]]:
    """The confidence of a result, whether its best match is close, and the regions with their own
    confidence; None without curves or without matches.

    `part`: a part of a photo was searched, which is a photo with a background like any object.
    """
    curve = curve_for(model, objects=bool(regions) or part)
    best = matches[0].similarity if matches else None
    if curve is None or best is None:
        return None, None, tuple(regions)
    return curve.confidence(best), best >= curve.close, tuple(_judged(curve, regions))


def _judged(curve: Curve, regions: Sequence[RegionMatches]) -> Iterator[RegionMatches]:
    for region in regions:
        best = region.matches[0].similarity if region.matches else None
        confidence = None if best is None else curve.confidence(best)
        yield replace(region, confidence=confidence)
