"""Fits a map to a catalogue's own pairs, and decides by held-out photos whether it is kept.

The strength of the penalty is chosen inside each half of the photos, and what it gains is measured
on the other half: once with halves of the photos, so that the products of the held-out photos may
have other photos in the fit, and once with halves of the products, so that they have none.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.encoders.projected_encoder import Matrix, checked
from app.evaluation.fit_samples import FitSamples
from app.evaluation.metrics import newcombe
from app.types import ProgressCallback, Vectors
from app.vectors import unit_rows

PENALTIES = (10.0, 3.0, 1.0, 0.3)
"""Strengths of the penalty that are tried, the strongest first."""

FOLDS = 3
BLOCK = 1024

Groups = NDArray[np.int64]
"""What each photo (n,) is held out with: itself, or all photos of its product."""

Hits = NDArray[np.bool_]
"""Whether the product of each photo (n,) is the nearest one."""

Fit = Callable[[Vectors, Vectors, NDArray[np.int64], float], Matrix]


@dataclass(frozen=True, slots=True)
class Gain:
    """Recall@1 over held-out photos without and with the map, and the 95 % interval of the
    difference for paired samples."""

    before: float
    after: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class FitReport:
    """What a fit gained, cross-fitted, and its map (dim, dim) if it is worth keeping.

    `known` is about photos whose products may have other photos in the fit, `new` about photos of
    products that have none. `penalty` is the strength chosen on all photos; None if no strength
    helped.
    """

    photos: int
    products: int
    gallery: int
    known: Gain
    new: Gain
    penalty: float | None
    weights: Matrix | None

    def as_dict(self) -> dict[str, Any]:
        """All figures by name, without the map."""
        figures = asdict(self)
        figures["kept"] = figures.pop("weights") is not None
        return figures


def fit(samples: FitSamples, progress: ProgressCallback = lambda message: None) -> FitReport:
    """Fit a map and measure it. It is kept if recall@1 of `known` rises beyond its interval and
    that of `new` does not fall beyond its own, and if it is invertible.
    """
    from app.encoders.projection_fit import fit_map  # loads torch

    before = _hits(samples, samples.photos, samples.products, None)
    gains = []
    for name, groups in (("photos", _each_photo(samples)), ("products", samples.products)):
        progress(f"Measuring on {name} that are held out.")
        gains.append(_gain(before, _cross_fitted(samples, groups, fit_map)))
    known, new = gains
    progress("Fitting to all photos.")
    penalty, weights = _choose_penalty(samples, fit_map), None
    if penalty is not None and known.low > 0 and new.high >= 0:
        with suppress(ValueError):  # a map that loses pictures is not kept
            weights = checked(_fit(samples, fit_map, penalty), samples.photos.shape[1])
    return FitReport(
        len(samples.photos),
        len(np.unique(samples.products)),
        len(samples.gallery),
        known,
        new,
        penalty,
        weights,
    )


def _each_photo(samples: FitSamples) -> Groups:
    """The number of each photo; one that was taken for several products has one number."""
    numbers: dict[bytes, int] = {}
    rows = [numbers.setdefault(row.tobytes(), len(numbers)) for row in samples.photos]
    return np.array(rows, np.int64)


def _cross_fitted(samples: FitSamples, groups: Groups, fit_map: Fit) -> Hits:
    """Hits of each half of the groups under the map that was fitted to the other half."""
    hits = np.zeros(len(samples.photos), bool)
    halves = _folds(groups, 2, seed=1)
    for half in range(2):
        train = _only(samples, halves != half)
        penalty = _choose_penalty(train, fit_map)
        weights = None if penalty is None else _fit(train, fit_map, penalty)
        held_out = halves == half
        hits[held_out] = _hits(
            samples, samples.photos[held_out], samples.products[held_out], weights
        )
    return hits


def _choose_penalty(samples: FitSamples, fit_map: Fit) -> float | None:
    """The strength whose held-out photos find their products most often, among those that do not
    cost new products anything; None if none finds more than no map."""
    best, chosen = _hits(samples, samples.photos, samples.products, None).mean(), None
    least = best
    for penalty in PENALTIES:
        known, new = (
            _held_out(samples, groups, fit_map, penalty).mean()
            for groups in (_each_photo(samples), samples.products)
        )
        if known > best and new >= least:
            best, chosen = known, penalty
    return chosen


def _held_out(samples: FitSamples, groups: Groups, fit_map: Fit, penalty: float) -> Hits:
    hits = np.zeros(len(samples.photos), bool)
    folds = _folds(groups, FOLDS, seed=2)
    for fold in range(FOLDS):
        weights = _fit(_only(samples, folds != fold), fit_map, penalty)
        rows = folds == fold
        hits[rows] = _hits(samples, samples.photos[rows], samples.products[rows], weights)
    return hits


def _folds(groups: Groups, count: int, seed: int) -> Groups:
    """The fold (0 to count - 1) of each photo (n,); a group is not divided."""
    each, inverse = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(each))
    return (order % count)[inverse]


def _only(samples: FitSamples, rows: Hits) -> FitSamples:
    return FitSamples(samples.gallery, samples.photos[rows], samples.products[rows])


def _fit(samples: FitSamples, fit_map: Fit, penalty: float) -> Matrix:
    """A map fitted to these photos. Products of the gallery without a photo are not pushed away
    from them: held-out photos may show these."""
    return fit_map(samples.gallery, samples.photos, samples.products, penalty)


def _hits(
    samples: FitSamples, photos: Vectors, products: NDArray[np.int64], weights: Matrix | None
) -> Hits:
    gallery = samples.gallery if weights is None else unit_rows(samples.gallery @ weights)
    photos = photos if weights is None else unit_rows(photos @ weights)
    nearest = [
        np.argmax(photos[start : start + BLOCK] @ gallery.T, axis=1)
        for start in range(0, len(photos), BLOCK)
    ]
    hits: Hits = np.concatenate([*nearest, np.zeros(0, np.int64)]) == products
    return hits


def _gain(before: Hits, after: Hits) -> Gain:
    counts = [int((a & b).sum()) for a, b in (
        (after, before), (after, ~before), (~after, before), (~after, ~before)
    )]  # fmt: skip
    low, high = newcombe(*counts)
    return Gain(float(before.mean()), float(after.mean()), low, high)
