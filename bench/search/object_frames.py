"""How well the frames of objects fit: the windows alone, and the frames that are shown.

    python -m bench.data.pasted_photos DATA SETS --seed 77 --count 50
    python -m bench.search.object_frames DATA SETS --cache FOLDER

DATA holds `clothing/` and `grocery/`; the products of SETS are in the catalogue as cut-outs on
white. Of each object, the frame with the largest intersection over union counts, if that of its
window is at least .1.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from app.search.regions import best_windows, limits_of
from app.search.windows import overlaps
from app.types import Region
from bench.search.photo_answers import CachedEncoder, Catalogue, Photo, photos

LEAST_OVERLAP = 0.1
CUT = 0.8


def main() -> None:
    """Parse the command line and print the figures of each set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("sets", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--count", type=int, default=50, help="photos of each set")
    arguments = parser.parse_args()
    encoder = CachedEncoder(arguments.cache)
    catalogue = Catalogue(arguments.data, arguments.sets / "white", encoder)
    groups = photos(arguments.data, arguments.sets, arguments.count, every=10**6)
    print("set: objects, share inside / cut by more than a fifth / intersection over union")
    for name, group in groups.items():
        fits = [fit for photo in group for fit in fits_of(catalogue, encoder, photo)]
        for place, kind in enumerate(("window", "frame") if fits else ()):
            inside, overlap = np.array([fit[place] for fit in fits]).reshape(-1, 2).T
            print(
                f"{name}, {kind}: {len(fits)}, {inside.mean():.3f} / {(inside < CUT).mean():.3f} / "
                f"{overlap.mean():.3f}"
            )
    encoder.save()


Fit = tuple[float, float]


def fits_of(catalogue: Catalogue, encoder: CachedEncoder, photo: Photo) -> list[tuple[Fit, Fit]]:
    """For each object of a photo, how its window and its frame fit."""
    if photo.boxes[0] == (0, 0, 1, 1):
        return []
    [whole] = catalogue.similarities(encoder.picture(photo.path)[None])
    limits = limits_of(encoder.model)
    if whole.max() >= limits.sure:
        return []
    windows, _cost = encoder.windows(photo.path)
    every = catalogue.comparison(encoder.model, np.zeros(len(catalogue.skus), bool))
    chosen = best_windows(every, windows, encoder.picture(photo.path)) or []
    fits = []
    for box in photo.boxes:
        nearest = max(chosen, key=lambda each: overlaps(box, [windows.regions[each.index]])[0])
        window = windows.regions[nearest.index]
        if overlaps(box, [window])[0] >= LEAST_OVERLAP:
            fits.append((fit(box, window), fit(box, nearest.frame)))
    return fits


def fit(box: Region, frame: Region) -> Fit:
    """The share of an object's box that is inside a frame, and their intersection over union."""
    width = max(0.0, min(box[2], frame[2]) - max(box[0], frame[0]))
    height = max(0.0, min(box[3], frame[3]) - max(box[1], frame[1]))
    inside = width * height / ((box[2] - box[0]) * (box[3] - box[1]))
    return inside, float(overlaps(box, [frame])[0])


if __name__ == "__main__":
    main()
