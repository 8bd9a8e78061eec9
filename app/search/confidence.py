"""How sure a result is: the probability that the product shown is in the catalogue.

Fitted by `bench/search/objects.py` for a model's fingerprint: logistic regression on the best
similarity, one curve for photos that a product fills and one for photos with backgrounds. For the
first kind the curves that `lookalike calibrate` fits to a catalogue take precedence. Without either
there is no confidence, because similarities of two models do not compare.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from app.search.vector_cache import PhotoObjects
from app.types import Calibration, Match, Model, RegionMatches

NO_CLOSE_MATCH = (
    "No close match. Choose the part of the photo that shows the product, add words, or try "
    "another photo."
)


ROUNDING = 1e-5
"""Two computations of one cosine similarity differ by less."""


TEXTURE = 10.0
"""A border texture between those of plain grounds and those of shops, in levels."""

LEAST_TEXTURE, UNKNOWN_TEXTURE = 1.0, 24.0
"""Less counts as the first. A photo whose texture is unknown counts as taken in a shop."""

ALIKE, BORDER = 0.38, 0.59
"""Medians of photos that a product fills, which unknown measures count as."""


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
    """The curves of a model: for photos that a product fills, and for objects before a background.

    A photo counts as filled if a cosine similarity of the whole is at least `filled_from`, for a
    border texture of TEXTURE, tiles as alike as ALIKE and a border as like the whole as BORDER;
    `per_texture` more for each e-fold of the texture, and `per_alike` and `per_border` more for 1
    of the others. It is the best one or, `by_fifth`, that to the fifth nearest product: what fills
    a photo is like many products, also where it is itself absent, but of what a shelf shows at most
    one stands out.
    """

    whole: Curve
    objects: Curve
    filled_from: float
    per_texture: float = 0.0
    per_alike: float = 0.0
    per_border: float = 0.0
    by_fifth: bool = False

    def is_filled(self, photo: PhotoObjects) -> bool:
        """Whether a product fills a photo. A border that varies shows that it does not, and an
        object that leads the whole photo."""
        texture = UNKNOWN_TEXTURE if photo.texture is None else photo.texture
        texture = max(texture, LEAST_TEXTURE)
        needed = self.filled_from + self.per_texture * math.log(texture / TEXTURE)
        needed += self.per_alike * ((ALIKE if photo.alike is None else photo.alike) - ALIKE)
        needed += self.per_border * ((BORDER if photo.border is None else photo.border) - BORDER)
        fifth = photo.fifth if self.by_fifth else None
        return not photo.leads and (photo.whole if fifth is None else fifth) >= needed


SHIPPED: Mapping[str, Curves] = {
    # The embedded encoder: 120 photos of clothes, 100 photos with a product pasted onto a shop.
    # Version 2:
    "dc68d287fdae546f9842e49bd690a6306a9e086e5cdcad1ce77600741b7d29e2": Curves(
        whole=Curve(0.774, 0.0277, 0.775),
        objects=Curve(0.4693, 0.114, 0.21),
        filled_from=0.198,
        per_texture=0.096,
        per_alike=-0.792,
        per_border=0.468,
        by_fifth=True,
    ),
    # Version 1:
    "848d92bb4f69856124841478144e1ff6b8c8d926d173407149ba1e4ddfe461b8": Curves(
        whole=Curve(0.7449, 0.0301, 0.7437), objects=Curve(0.5812, 0.0642, 0.48), filled_from=0.5
    ),
}
"""The fitted curves, by the fingerprint of the model."""


def curve_for(model: Model, photo: PhotoObjects | None) -> Curve | None:
    """The curve for a photo, or for a part of a photo (None); None if the model has no curves."""
    curves = SHIPPED.get(model.fingerprint)
    if curves is None:
        return None
    return curves.whole if photo is not None and curves.is_filled(photo) else curves.objects


def calibrated_curve(
    category: str | None, calibrations: Mapping[str | None, Calibration]
) -> Curve | None:
    """The curve fitted for matches of a category, else that for the whole catalogue (None); None
    without either."""
    for row in map(calibrations.get, (category, None)):
        if row is not None and row.close.similarity is not None:
            assert row.close.midpoint is not None and row.close.width is not None
            return Curve(row.close.midpoint, row.close.width, row.close.similarity)
    return None


def judged(
    matches: Sequence[Match],
    regions: Sequence[RegionMatches],
    model: Model,
    photo: PhotoObjects | None,
    calibrations: Mapping[str | None, Calibration] = MappingProxyType({}),
) -> tuple[float | None, bool | None, tuple[RegionMatches, ...]]:
    """The confidence of a result, whether its best match is close, and the regions with their own
    confidence; None without curves or without matches.

    `photo` is what was found in the photo, None for a part of one. `calibrations` are those of the
    model by category.
    """
    best = matches[0].similarity if matches else None
    if best is None:
        return None, None, tuple(regions)
    curve = curve_for(model, photo)
    if _filled(model, photo, best):
        curve = calibrated_curve(matches[0].product.category, calibrations) or curve
    if curve is None:
        return None, None, tuple(regions)
    return curve.confidence(best), best >= curve.close, tuple(_judged(curve, regions))


def _filled(model: Model, photo: PhotoObjects | None, best: float) -> bool:
    """Whether a product fills the photo. Without shipped curves it is known only where no object in
    the photo has a better match than the whole."""
    if photo is None:
        return False
    curves = SHIPPED.get(model.fingerprint)
    return best <= photo.whole + ROUNDING if curves is None else curves.is_filled(photo)


def _judged(curve: Curve, regions: Sequence[RegionMatches]) -> Iterator[RegionMatches]:
    for region in regions:
        best = region.matches[0].similarity if region.matches else None
        confidence = None if best is None else curve.confidence(best)
        yield replace(region, confidence=confidence)
