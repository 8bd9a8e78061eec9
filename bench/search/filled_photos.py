"""Fits which photos a product fills, by the whole photo's best similarity and what it shows.

    python -m bench.data.pasted_photos DATA SETS
    python -m bench.search.filled_photos DATA SETS --cache FOLDER

Filled are the clothing queries of absent categories: of present ones the similarity alone tells.
Photos with a background are the pasted ones and the grocery queries, of present and of absent
categories. A logistic regression on the similarity, the border's texture, how alike the photo's
tiles are, and how like the whole its border is gives `per_texture`, `per_alike` and `per_border`,
and `filled_from` is the limit that MISSED of the clothing queries do not reach. They are printed
for all photos, and cross-fitted by halves of the products; see `bench/search/objects.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from app.search.confidence import ALIKE, BORDER, LEAST_TEXTURE, TEXTURE
from app.search.regions import seen_photo
from bench.data.pasted_photos import SETS
from bench.search.cross_fitting import half
from bench.search.photo_answers import CachedEncoder, Catalogue, Photo, photos

MISSED = 0.04
FITTED = {"clean": 3.0, "packaged": 1.0, "loose": 2.0, "plain": 1.0}
"""The sets that are fitted to, with their weights."""
REGULAR = 1e-3
"""Weight of the squared slopes, in standard deviations of the measures."""

Measures = NDArray[np.float64]


def others_of(catalogue: Catalogue, category: str, name: str) -> NDArray[np.bool_]:
    """The products that are left without a category. For the clothing queries ("clean") it is
    taken out with every second other one, and no groceries are there, as in `close_match.py`: the
    less is similar, the harder it is to tell that a product fills the photo."""
    if name != "clean":
        return np.asarray(catalogue.categories != category)
    clothes = sorted(each for each in set(catalogue.categories) if each.startswith("clothing"))
    return np.isin(catalogue.categories, clothes[1 - clothes.index(category) % 2 :: 2])


def measures(catalogue: Catalogue, encoder: CachedEncoder, photo: Photo, name: str) -> list[float]:
    """Of a photo of a set: best similarity of the whole, the same among `others_of` only, and what
    `Curves.is_filled` weighs: the logarithm of the texture, and how alike and like the whole."""
    vector = encoder.picture(photo.path)
    [whole] = catalogue.similarities(vector[None])
    others = others_of(catalogue, catalogue.category[photo.skus[0]], name)
    windows, _ = encoder.windows(photo.path)
    seen = seen_photo(float(whole.max()), windows, vector)
    assert seen.texture is not None and seen.alike is not None and seen.border is not None
    texture = float(np.log(max(seen.texture, LEAST_TEXTURE) / TEXTURE))
    return [
        float(whole.max()), float(whole[others].max()),
        texture, seen.alike - ALIKE, seen.border - BORDER,
    ]  # fmt: skip


def fit(groups: dict[str, Measures]) -> tuple[float, ...]:
    """`filled_from`, `per_texture`, `per_alike` and `per_border`."""
    rows, filled, weights = [], [], []
    for name, group in groups.items():
        columns = (1,) if name == "clean" else (0, 1)
        for column in columns:
            rows.append(group[:, [column, 2, 3, 4]])
            filled.append(np.full(len(group), float(name == "clean")))
            weights.append(np.full(len(group), FITTED[name] / len(columns) / len(group)))
    x, y, weight = map(np.concatenate, (rows, filled, weights))
    mean, scale = x.mean(0), x.std(0)

    def loss(parameters: NDArray[np.float64]) -> float:
        exponents = (x - mean) / scale @ parameters[:4] + parameters[4]
        return float(
            weight @ (np.logaddexp(0, exponents) - y * exponents)
            + REGULAR * (parameters[:4] ** 2).sum()
        )

    slopes = minimize(loss, np.zeros(5), method="BFGS").x[:4] / scale
    per = -slopes[1:] / slopes[0]
    clean = groups["clean"]
    needed = np.quantile(clean[:, 1] - clean[:, 2:] @ per, MISSED)
    return (float(needed), *per.tolist())


def report(groups: dict[str, Measures], limits: dict[str, Measures]) -> None:
    """Print the share of each kind that counts as filled, of present and of absent products."""
    for name, group in groups.items():
        needed = limits[name][:, 0] + (limits[name][:, 1:] * group[:, 2:]).sum(axis=1)
        present, absent = ((group[:, column] >= needed).mean() for column in (0, 1))
        print(f"  {name} ({len(group)}): present {present:.3f}, absent {absent:.3f}")


def main() -> None:
    """Parse the command line and print everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("sets", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--count", type=int, default=140, help="pasted photos of each set")
    parser.add_argument("--every", type=int, default=4, help="of the grocery queries, every Nth")
    arguments = parser.parse_args()
    encoder = CachedEncoder(arguments.cache)
    chosen = photos(arguments.data, arguments.sets, arguments.count, arguments.every)
    white = Catalogue(arguments.data, arguments.sets / "white", encoder)
    real = Catalogue(arguments.data, None, encoder)
    groups, halves = {}, {}
    for name, group in chosen.items():
        catalogue = white if name in SETS else real
        groups[name] = np.array([measures(catalogue, encoder, photo, name) for photo in group])
        halves[name] = np.array([half(photo.skus[0]) for photo in group])
        encoder.save()
    found = fit({name: groups[name] for name in FITTED})
    names = ("filled_from", "per_texture", "per_alike", "per_border")
    fitted = ", ".join(f"{name} {value:.3f}" for name, value in zip(names, found, strict=True))
    print(f"fitted on all: {fitted}")
    report(groups, {name: np.tile(found, (len(group), 1)) for name, group in groups.items()})
    crossed = {name: np.zeros((len(group), 4)) for name, group in groups.items()}
    for side in (False, True):
        other = fit({name: groups[name][halves[name] != side] for name in FITTED})
        for name in groups:
            crossed[name][halves[name] == side] = other
    print("each half of the products by the fit of the other")
    report(groups, crossed)


if __name__ == "__main__":
    main()
