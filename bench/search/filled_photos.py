"""Fits which photos a product fills, by the whole photo's similarities and what it shows.

    python -m bench.data.pasted_photos DATA SETS
    python -m bench.search.filled_photos DATA SETS --cache FOLDER

Filled are the clothing queries of absent products: half of the categories are taken out of the
catalogue, at random and several times. Photos with a background are the pasted ones and the grocery
queries, with their product and without its category. A logistic regression on the similarity to the
fifth nearest product, the border's texture, how alike the photo's tiles are, and how like the whole
its border is gives `per_texture`, `per_alike` and `per_border`. `filled_from` is the limit that
FILLED of the grocery queries of present products reach.

Printed are the fit to all photos, and what random divisions give: each half of the categories is
judged by what was fitted to the other half and to the photos of half of the other products. Every
second loose photo is in no fit, and neither are the sets but `plain`. See `bench/search/objects.py`
for the cut-offs, and `bench/search/close_match.py` for the service.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from app.search.confidence import ALIKE, BORDER, LEAST_TEXTURE, SHIPPED, TEXTURE
from app.search.regions import seen_photo
from app.search.vector_cache import PhotoObjects
from bench.data.pasted_photos import SETS
from bench.search.photo_answers import (
    Answer,
    CachedEncoder,
    Catalogue,
    Photo,
    answer,
    nearest,
    photos,
    rank,
)

FILLED = 0.02
FITTED = {"clean": 3.0, "packaged": 1.0, "loose": 2.0, "plain": 1.0}
"""The sets that are fitted to, with their weights."""
SHOP = ("packaged", "loose")
HALVINGS, FIRST_HALVING = 8, 5000
"""How often half of the categories are taken out for the fit, and the first seed of that."""
DIVISIONS = 40
REGULAR = 1e-3
"""Weight of the squared slopes, in standard deviations of the measures."""

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Clean:
    """Photos that a product fills: categories (n,), similarities to all products (n, products),
    whose categories are `shown`, and measures (n, 3): the logarithm of the texture, how alike the
    tiles are, and how like the whole the border is."""

    categories: NDArray[np.str_]
    similarities: NDArray[np.float32]
    shown: NDArray[np.str_]
    measures: Array

    def without(self, held: Sequence[str]) -> tuple[Array, Array]:
        """Of the photos of categories in `held`, when these are absent: the best similarities (n,),
        and what `score` weighs (n, 4)."""
        kept = ~np.isin(self.shown, held)
        chosen = np.isin(self.categories, held)
        near = [nearest(row) for row in self.similarities[chosen][:, kept]]
        weighed = np.column_stack([[each[-1] for each in near], self.measures[chosen]])
        return np.array([each[0] for each in near]), weighed


@dataclass(frozen=True)
class WithBackground:
    """Photos with a background: skus (n,), and with their product (0) and without its category (1)
    what `score` weighs (n, 2, 4), the best similarity of the merged list and whether objects lead
    (n, 2); whether the product is the first match (n,)."""

    skus: NDArray[np.str_]
    weighed: Array
    merged: Array
    leads: Bools
    first: Bools

    def of(self, chosen: Bools) -> WithBackground:
        """Some of the photos."""
        return WithBackground(
            self.skus[chosen], self.weighed[chosen], self.merged[chosen], self.leads[chosen],
            self.first[chosen],
        )  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """`filled_from`, and how much each of the measures counts, (4,), the similarity 1."""

    limit: float
    slopes: Array

    def filled(self, weighed: Array) -> Bools:
        """Whether the similarity (..., 4) reaches what the measures need."""
        return np.asarray(weighed @ self.slopes >= self.limit)


def measures(seen: PhotoObjects) -> list[float]:
    """What `Curves.is_filled` weighs besides the similarity."""
    assert seen.texture is not None and seen.alike is not None and seen.border is not None
    texture = float(np.log(max(seen.texture, LEAST_TEXTURE) / TEXTURE))
    return [texture, seen.alike - ALIKE, seen.border - BORDER]


def clean(catalogue: Catalogue, encoder: CachedEncoder, group: Sequence[Photo]) -> Clean:
    """Clean photos against the clothes of a catalogue. Their objects never led the whole photo."""
    clothes = np.char.startswith(catalogue.categories, "clothing")
    rows, seen = [], []
    for photo in group:
        vector = encoder.picture(photo.path)
        rows.append(catalogue.similarities(vector[None])[0][clothes])
        windows, _ = encoder.windows(photo.path)
        seen.append(measures(seen_photo(nearest(rows[-1]), windows, vector)))
    own = np.array([catalogue.category[photo.skus[0]] for photo in group])
    return Clean(own, np.stack(rows), catalogue.categories[clothes], np.array(seen))


def with_background(
    catalogue: Catalogue, encoder: CachedEncoder, group: Sequence[Photo]
) -> WithBackground:
    """Photos with their product in the catalogue, and without its category."""
    both, first = [], []
    for photo in group:
        others = catalogue.categories != catalogue.category[photo.skus[0]]
        found = [answer(catalogue, encoder, photo, passing) for passing in (None, others)]
        first.append(rank(found[0].merged, catalogue.same[photo.skus[0]]) == 0)
        both.append([_judged(encoder, photo, each) for each in found])
    rows = np.array(both, np.float64)
    return WithBackground(
        np.array([photo.skus[0] for photo in group]),
        rows[:, :, :4], rows[:, :, 4], rows[:, :, 5] > 0, np.array(first),
    )  # fmt: skip


def _judged(encoder: CachedEncoder, photo: Photo, found: Answer) -> list[float]:
    near = nearest(found.whole)
    seen = found.seen
    if seen is None:
        windows, _ = encoder.windows(photo.path)
        seen = seen_photo(near, windows, encoder.picture(photo.path))
    leads = found.lead is not None and found.leads
    return [near[-1], *measures(seen), float(found.merged.max()), float(leads)]


def fit(filled: Array, others: Mapping[str, WithBackground]) -> Fit:
    """The fit to what is weighed of clean photos, (n, 4), and to sets of others."""
    groups = {"clean": [filled]}
    groups |= {name: [group.weighed[:, 0], group.weighed[:, 1]] for name, group in others.items()}
    rows = [each for parts in groups.values() for each in parts]
    weights = [
        np.full(len(each), FITTED[name] / len(parts) / len(each))
        for name, parts in groups.items()
        for each in parts
    ]
    x, weight = np.concatenate(rows), np.concatenate(weights)
    y = np.repeat([1.0, 0.0], [len(filled), len(x) - len(filled)])
    mean, scale = x.mean(0), x.std(0)

    def loss(parameters: Array) -> float:
        exponents = (x - mean) / scale @ parameters[:4] + parameters[4]
        return float(
            weight @ (np.logaddexp(0, exponents) - y * exponents)
            + REGULAR * (parameters[:4] ** 2).sum()
        )

    slopes = minimize(loss, np.zeros(5), method="BFGS").x[:4] / scale
    slopes /= slopes[0]
    shop = np.concatenate([others[name].weighed[:, 0] @ slopes for name in SHOP])
    return Fit(float(np.sort(shop)[::-1][int(FILLED * len(shop))]), slopes)


def halvings(photos: Clean, kept: Sequence[str]) -> Array:
    """What is weighed of photos of some categories, with random halves of all absent, (n, 4)."""
    names = sorted(set(photos.shown.tolist()))
    found = []
    for number in range(HALVINGS):
        drawn = np.random.default_rng(FIRST_HALVING + number).permutation(names)
        for held in (drawn[0::2], drawn[1::2]):
            _, weighed = photos.without(held.tolist())
            chosen = np.isin(photos.categories[np.isin(photos.categories, held)], kept)
            found.append(weighed[chosen])
    return np.concatenate(found)


def says_none(group: WithBackground, found: Fit, whole: float, objects: float) -> Bools:
    """Whether "no close match" is said, (n, 2), by the cut-offs of both kinds of photos."""
    filled = found.filled(group.weighed) & ~group.leads
    return np.asarray(group.merged < np.where(filled, whole, objects))


def report(groups: Mapping[str, WithBackground], found: Fit, cuts: tuple[float, float]) -> None:
    """Print what a fit says of each set."""
    for name, group in groups.items():
        filled = found.filled(group.weighed) & ~group.leads
        said = says_none(group, found, *cuts)
        right = said[:, 1].sum() + (said[:, 0] & ~group.first).sum()
        (present, absent), (yes, no) = said.mean(0), filled.mean(0)
        print(
            f"  {name} ({len(said)}): filled {no:.3f}, {yes:.3f}; says it for {absent:.3f} absent "
            f"and {present:.3f} present; right {right / max(said.sum(), 1):.3f} of {said.sum()}"
        )


def cross_fitted(
    photos: Clean, groups: Mapping[str, WithBackground], cuts: tuple[float, float]
) -> None:
    """Print what random divisions give, with the shipped cut-offs."""
    names = sorted(set(photos.shown.tolist()))
    skus = np.unique(np.concatenate([group.skus for group in groups.values()]))
    detected: list[float] = []
    right: dict[str, list[float]] = {name: [] for name in groups}
    for seed in range(DIVISIONS):
        random = np.random.default_rng(seed)
        drawn, sides = random.permutation(names), random.permutation(len(skus)) % 2
        side_of = dict(zip(skus.tolist(), sides.tolist(), strict=True))
        found_clean, made, correct = [], dict.fromkeys(groups, 0), dict.fromkeys(groups, 0)
        for side in (0, 1):
            held = drawn[side::2].tolist()
            mine = {
                name: np.array([side_of[each] == side for each in group.skus.tolist()])
                for name, group in groups.items()
            }
            others = {name: groups[name].of(~mine[name]) for name in FITTED if name in groups}
            kept = [name for name in names if name not in held]
            fitted = fit(halvings(photos, kept), others)
            best, weighed = photos.without(held)
            found_clean += (best < np.where(fitted.filled(weighed), *cuts)).tolist()
            for name, group in groups.items():
                judged = group.of(mine[name])
                said = says_none(judged, fitted, *cuts)
                made[name] += int(said.sum())
                correct[name] += int(said[:, 1].sum() + (said[:, 0] & ~judged.first).sum())
        detected.append(float(np.mean(found_clean)))
        for name in groups:
            right[name].append(correct[name] / max(made[name], 1))
    print(f"{DIVISIONS} divisions, means, 5th and 95th percentile")
    print(f"  clean, absent detected: {spread(detected)}")
    for name, shares in right.items():
        print(f"  {name}, right: {spread(shares)}")


def spread(values: Sequence[float]) -> str:
    """The mean, the 5th and the 95th percentile."""
    low, high = np.percentile(values, (5, 95))
    return f"{np.mean(values):.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    """Parse the command line and print everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("sets", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100, help="pasted photos of each set")
    arguments = parser.parse_args()
    encoder = CachedEncoder(arguments.cache)
    curves = SHIPPED[encoder.model.fingerprint]
    cuts = curves.whole.close, curves.objects.close
    chosen = photos(arguments.data, arguments.sets, arguments.count, 1)
    chosen["loose"], chosen["loose, other"] = chosen["loose"][::2], chosen["loose"][1::2]
    white = Catalogue(arguments.data, arguments.sets / "white", encoder)
    real = Catalogue(arguments.data, None, encoder)
    filled, groups = clean(real, encoder, chosen.pop("clean")), {}
    encoder.save()
    chosen.pop("two")
    for name, group in chosen.items():
        groups[name] = with_background(white if name in SETS else real, encoder, group)
        encoder.save()
    names = sorted(set(filled.shown.tolist()))
    found = fit(halvings(filled, names), {name: groups[name] for name in FITTED if name in groups})
    texture, alike, border = -found.slopes[1:]
    print(
        f"fitted on all: filled_from {found.limit:.3f}, per_texture {texture:.3f}, "
        f"per_alike {alike:.3f}, per_border {border:.3f}"
    )
    report(groups, found, cuts)
    cross_fitted(filled, groups, cuts)


if __name__ == "__main__":
    main()
