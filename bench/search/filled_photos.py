"""Fits which photos a product fills: by the whole photo's best similarity and its border texture.

    python -m bench.data.pasted_photos DATA SETS
    python -m bench.search.filled_photos DATA SETS --cache FOLDER

Filled are the clothing queries of absent categories: of present ones the similarity alone tells.
Photos with a background are the pasted ones and the grocery queries, of present and of absent
categories. A logistic regression on both measures gives `per_texture`, and `filled_from` is the
limit that MISSED of the clothing queries do not reach. Both are printed for all photos, and
cross-fitted by halves of the products; see `bench/search/objects.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import minimize

from app.images.border_texture import border_texture
from app.images.decoding import decode
from app.search.confidence import LEAST_TEXTURE, TEXTURE
from bench.data.pasted_photos import SETS
from bench.search.cross_fitting import half
from bench.search.objects import CachedEncoder, Catalogue, Photo, photos

MISSED = 0.025
FITTED = ("clean", "packaged", "loose", "plain", "two")
Measures = NDArray[np.float64]


def measures(catalogue: Catalogue, encoder: CachedEncoder, photo: Photo) -> list[float]:
    """Best similarity of the whole, the same without the product's category, and the logarithm of
    the texture."""
    [whole] = catalogue.similarities(encoder.picture(photo.path)[None])
    others = catalogue.categories != catalogue.category[photo.skus[0]]
    picture: Image.Image = decode(photo.path.read_bytes())
    texture = max(border_texture(picture), LEAST_TEXTURE)
    return [float(whole.max()), float(whole[others].max()), float(np.log(texture / TEXTURE))]


def fit(groups: dict[str, Measures]) -> tuple[float, float]:
    """`filled_from` and `per_texture`; each kind of photo has the same weight."""
    rows, filled, weights = [], [], []
    for name, group in groups.items():
        for column in (1,) if name == "clean" else (0, 1):
            rows.append(group[:, [column, 2]])
            filled.append(np.full(len(group), float(name == "clean")))
            weights.append(np.full(len(group), (8 if name == "clean" else 1) / len(group)))
    x, y, weight = map(np.concatenate, (rows, filled, weights))
    mean, scale = x.mean(0), x.std(0)

    def loss(parameters: NDArray[np.float64]) -> float:
        exponents = (x - mean) / scale @ parameters[:2] + parameters[2]
        return float(weight @ (np.logaddexp(0, exponents) - y * exponents))

    slopes = minimize(loss, np.zeros(3), method="BFGS").x[:2] / scale
    per_texture = float(-slopes[1] / slopes[0])
    clean = groups["clean"]
    return float(np.quantile(clean[:, 1] - per_texture * clean[:, 2], MISSED)), per_texture


def report(groups: dict[str, Measures], limits: dict[str, Measures]) -> None:
    """Print the share of each kind that counts as filled, of present and of absent products."""
    for name, group in groups.items():
        needed = limits[name][:, 0] + limits[name][:, 1] * group[:, 2]
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
        groups[name] = np.array([measures(catalogue, encoder, photo) for photo in group])
        halves[name] = np.array([half(photo.skus[0]) for photo in group])
        encoder.save()
    found = fit({name: groups[name] for name in FITTED})
    print(f"fitted on all: filled_from {found[0]:.3f}, per_texture {found[1]:.3f}")
    report(groups, {name: np.tile(found, (len(group), 1)) for name, group in groups.items()})
    crossed = {name: np.zeros((len(group), 2)) for name, group in groups.items()}
    for side in (False, True):
        other = fit({name: groups[name][halves[name] != side] for name in FITTED})
        for name in groups:
            crossed[name][halves[name] == side] = other
    print("each half of the products by the fit of the other")
    report(groups, crossed)


if __name__ == "__main__":
    main()
