"""Recall of searching by the objects in a photo, its cost in encodes, and "no close match".

    python -m bench.data.pasted_photos DATA SETS
    python -m bench.search.objects DATA SETS --cache FOLDER [--every 2]

DATA holds `clothing/` and `grocery/`. The catalogue is both of them, with the products of SETS as
cut-outs on white, as a shop photographs them; pasted photos show the same cut-outs. Ranks are
computed with numpy from the vectors that a search uses, by the functions of `app.search`. Vectors
are kept in FOLDER, by the encoder's fingerprint. One encode is a picture of the encoder's input
size; a feature map costs as many as its pixels. `--every N` takes every Nth photo of a set.

Thresholds are cross-fitted: products are split in two by their sku's sha256, and what is fitted on
one half is measured on the other.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.encoders.efficientnet import SIDE, EmbeddedEncoder
from app.encoders.feature_map import map_input_size
from app.images.decoding import decode
from app.search.regions import DEFAULT_SURE, EXACT_OBJECTS, choose_windows, object_vectors
from app.search.windows import Windows, window_grid
from app.types import Region, Vector, Vectors
from app.vectors import round_to_float16

STRIDE = 32
RESAMPLES = 2000


@dataclass(frozen=True)
class Photo:
    """A query photo with the skus and the boxes of the products it shows."""

    path: Path
    skus: tuple[str, ...]
    boxes: tuple[Region, ...]


@dataclass(frozen=True)
class Answer:
    """Similarities of a photo to all products, of the whole and of each object; the objects' boxes,
    and the cost in encodes."""

    whole: NDArray[np.float32]
    objects: tuple[NDArray[np.float32], ...]
    boxes: tuple[Region, ...]
    cost: float

    @property
    def merged(self) -> NDArray[np.float32]:
        return np.asarray(np.max([self.whole, *self.objects], axis=0))


class CachedEncoder:
    """The embedded encoder, with its vectors kept in a folder."""

    def __init__(self, folder: Path) -> None:
        self._encoder = EmbeddedEncoder.load()
        self._file = folder / f"objects-{self._encoder.fingerprint[:12]}.npz"
        folder.mkdir(parents=True, exist_ok=True)
        self._kept: dict[str, NDArray[np.float32]] = {}
        if self._file.exists():
            with np.load(self._file) as kept:
                self._kept = dict(kept)

    def save(self) -> None:
        np.savez(self._file, **self._kept)

    def picture(self, path: Path, box: Region | None = None) -> Vector:
        """The vector of a picture, or of a part of it."""
        place = "" if box is None else " ".join(f"{edge:.4f}" for edge in box)
        key = f"{path.name} {place}"
        if key not in self._kept:
            picture = decode(path.read_bytes())
            [vector] = self._encoder.encode_pictures(
                [picture if box is None else cut(picture, box)]
            )
            self._kept[key] = vector
        return self._kept[key]

    def windows(self, path: Path) -> tuple[Windows, float]:
        """The windows of a photo, and the cost of their map in encodes."""
        with Image.open(path) as picture:
            size = picture.size
        regions = window_grid(size)
        key = f"{path.name} windows"
        if key not in self._kept:
            feature_map = self._encoder.encode_map(decode(path.read_bytes()))
            self._kept[key] = self._encoder.pool_windows(feature_map, regions)
        width, height = map_input_size(size, STRIDE)
        return Windows(regions, self._kept[key]), width * height / SIDE**2


class Catalogue:
    """The vectors of all pictures, by product, and the products that show the same picture."""

    def __init__(self, data: Path, white: Path, encoder: CachedEncoder) -> None:
        self.skus: list[str] = []
        self.category: dict[str, str] = {}
        self.packaged: dict[str, bool] = {}
        vectors, first, shown = [], [], {}
        for name in ("clothing", "grocery"):
            for row in rows(data / name / "catalogue.csv"):
                sku = row["sku"]
                first.append(len(vectors))
                self.skus.append(sku)
                self.category[sku] = f"{name}: {row['category']}"
                self.packaged[sku] = row.get("packaged") == "1"
                cut_out = white / f"{sku}.jpg"
                paths = [data / name / image for image in row["images"].split("|")]
                for path in [cut_out] if cut_out.exists() else paths:
                    vectors.append(encoder.picture(path))
                shown[sku] = set(paths)
        self._vectors = round_to_float16(np.stack(vectors))
        self._first = np.array(first)
        self.categories = np.array([self.category[sku] for sku in self.skus])
        by_path: dict[Path, set[int]] = {}
        for number, sku in enumerate(self.skus):
            for path in shown[sku]:
                by_path.setdefault(path, set()).add(number)
        self.same = {
            sku: sorted(set().union(*(by_path[path] for path in shown[sku]))) for sku in self.skus
        }

    def similarities(self, vectors: Vectors) -> NDArray[np.float32]:
        """The best similarity of each product: (n, products)."""
        best = np.maximum.reduceat(vectors @ self._vectors.T, self._first, axis=1)
        return np.asarray(best, np.float32)


def cut(picture: Image.Image, box: Region) -> Image.Image:
    """A part of a picture."""
    (left, top, right, bottom), (width, height) = box, picture.size
    return picture.crop(
        (int(left * width), int(top * height), round(right * width), round(bottom * height))
    )


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def answer(
    catalogue: Catalogue, encoder: CachedEncoder, photo: Photo, sure: float,
    passing: NDArray[np.bool_] | None = None,
) -> Answer:  # fmt: skip
    """What a search finds; `passing` are the products in the catalogue, None: all."""
    absent = np.zeros(len(catalogue.skus), bool) if passing is None else ~passing

    def similarities(vectors: Vectors) -> NDArray[np.float32]:
        found = catalogue.similarities(vectors)
        found[:, absent] = -1
        return found

    [whole] = similarities(encoder.picture(photo.path)[None])
    if whole.max() >= sure:
        return Answer(whole, (), (), 1.0)
    windows, map_cost = encoder.windows(photo.path)
    best = similarities(windows.vectors).max(axis=1).astype(np.float64)
    chosen = choose_windows(windows.regions, best)
    boxes = tuple(windows.regions[each.index] for each in chosen)
    crops = [encoder.picture(photo.path, box) for box in boxes[:EXACT_OBJECTS]]
    objects = tuple(
        similarities(np.stack(object_vectors(windows, each, crop))).max(axis=0)
        for each, crop in zip_longest(chosen, crops)
    )
    return Answer(whole, objects, boxes, 1 + map_cost + len(crops))


def rank(similarities: NDArray[np.float32], expected: Sequence[int]) -> int:
    """The rank of a product, 0 is first; products in `expected` show the same picture."""
    best = similarities[expected].max()
    return int((similarities > best + 1e-6).sum())


def photos(data: Path, sets: Path, every: int) -> dict[str, list[Photo]]:
    """The photos of each set: pasted, clothing queries, grocery queries packaged and loose."""
    groups: dict[str, list[Photo]] = {}
    for row in rows(sets / "queries.csv"):
        boxes = [tuple(map(float, box.split("/"))) for box in row["boxes"].split("|")]
        photo = Photo(sets / row["query"], tuple(row["skus"].split("|")), tuple(boxes))  # type: ignore[arg-type]
        groups.setdefault(row["set"], []).append(photo)
    packaged = {row["sku"]: row["packaged"] for row in rows(data / "grocery" / "catalogue.csv")}
    for name in ("clothing", "grocery"):
        for row in rows(data / name / "queries.csv"):
            sku, path = row["expected_sku"], data / name / row["query"]
            kind = {None: "clean", "1": "packaged", "0": "loose"}[packaged.get(sku)]
            groups.setdefault(kind, []).append(Photo(path, (sku,), ((0, 0, 1, 1),)))
    return {name: group[::every] for name, group in groups.items()}


def interval(differences: NDArray[np.float64]) -> str:
    """The mean of paired differences with its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    means = [rng.choice(differences, len(differences)).mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, (2.5, 97.5))
    return f"{differences.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def half(sku: str) -> bool:
    """The half of the products that a sku belongs to."""
    return hashlib.sha256(sku.encode()).digest()[0] % 2 == 1


def report(catalogue: Catalogue, encoder: CachedEncoder, name: str, group: list[Photo]) -> None:
    """Print recall of the whole, of the merged list and of the true box, and the cost."""
    whole, merged, boxed, costs = [], [], [], []
    for photo in group:
        found = answer(catalogue, encoder, photo, DEFAULT_SURE)
        expected = catalogue.same[photo.skus[0]]
        whole.append(rank(found.whole, expected))
        merged.append(rank(found.merged, expected))
        if photo.boxes[0] != (0, 0, 1, 1):
            vector = encoder.picture(photo.path, photo.boxes[0])
            boxed.append(rank(catalogue.similarities(vector[None])[0], expected))
        costs.append(found.cost)
    a, b = np.array(whole), np.array(merged)
    print(f"{name}: {len(group)} photos, {np.mean(costs):.2f} encodes (at most {max(costs):.2f})")
    for k in (1, 5):
        known = f", true box {np.mean(np.array(boxed) < k):.3f}" if boxed else ""
        difference = interval((b < k).astype(float) - (a < k))
        print(
            f"  recall@{k}: whole {np.mean(a < k):.3f}, objects {np.mean(b < k):.3f} "
            f"({difference}){known}"
        )


def report_two(catalogue: Catalogue, encoder: CachedEncoder, group: list[Photo]) -> None:
    """Print how often both products are among the first five of a region of their own."""
    both, costs = [], []
    for photo in group:
        found = answer(catalogue, encoder, photo, DEFAULT_SURE)
        hit = [
            {place for place, each in enumerate(found.objects)
             if rank(each, catalogue.same[sku]) < 5}
            for sku in photo.skus
        ]  # fmt: skip
        both.append(bool(hit[0] and hit[1] and len(hit[0] | hit[1]) > 1))
        costs.append(found.cost)
    print(f"two: {len(group)} photos, both found {np.mean(both):.3f}, {np.mean(costs):.2f} encodes")


def report_absent(
    catalogue: Catalogue, encoder: CachedEncoder, name: str, group: list[Photo]
) -> None:
    """Print, for the best similarity of a photo, how many photos of absent categories are told from
    those of present ones, with the threshold fitted on the other half of the products."""
    present = [answer(catalogue, encoder, photo, DEFAULT_SURE) for photo in group]
    absent = [
        answer(
            catalogue, encoder, photo, DEFAULT_SURE,
            catalogue.categories != catalogue.category[photo.skus[0]],
        )
        for photo in group
    ]  # fmt: skip
    halves = np.array([half(photo.skus[0]) for photo in group])
    yes = np.array([found.merged.max() for found in present])
    no = np.array([found.merged.max() for found in absent])
    detected, alarms = [], []
    for side in (False, True):
        cut_off = np.quantile(yes[halves != side], 0.05)
        detected += list(no[halves == side] < cut_off)
        alarms += list(yes[halves == side] < cut_off)
    print(
        f"{name}: absent categories detected {np.mean(detected):.3f} "
        f"at {np.mean(alarms):.3f} false alarms"
    )
    for share in (0.01, 0.02, 0.05, 0.1, 0.2):
        cut_off = np.quantile(yes, share)
        print(
            f"  {share:.0%} false alarms below {cut_off:.3f}: {np.mean(no < cut_off):.3f} detected"
        )


def main() -> None:
    """Parse the command line and print everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("sets", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1)
    arguments = parser.parse_args()
    encoder = CachedEncoder(arguments.cache)
    groups = photos(arguments.data, arguments.sets, arguments.every)
    catalogue = Catalogue(arguments.data, arguments.sets / "white", encoder)
    for name, group in groups.items():
        if name == "two":
            report_two(catalogue, encoder, group)
        else:
            report(catalogue, encoder, name, group)
        encoder.save()
    for name in ("clean", "plain", "packaged"):
        report_absent(catalogue, encoder, name, groups[name])
    encoder.save()


if __name__ == "__main__":
    main()
