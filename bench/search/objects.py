"""Recall of searching by the objects in a photo, its cost in encodes, and "no close match".

    python -m bench.data.pasted_photos DATA SETS
    python -m bench.search.objects DATA SETS --cache FOLDER

DATA holds `clothing/` and `grocery/`. The catalogue is both of them. For pasted photos the products
of SETS are in it as cut-outs on white, as a shop photographs them; the photos show the same
cut-outs. Ranks are computed with numpy from the vectors that a search uses, by the functions of
`app.search`. Vectors are kept in FOLDER, by the encoder's fingerprint. One encode is a picture of
the encoder's input size; a feature map costs as many as its pixels.

Thresholds and the lead that objects need are cross-fitted: products are split in two by their sku's
sha256, and what is fitted on one half is measured on the other.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import minimize

from app.encoders.efficientnet_pair import SIDE, PairEncoder
from app.encoders.embedded_versions import MAP_PIXELS, NEWEST
from app.encoders.feature_map import STRIDE, map_input_size
from app.images.border_texture import border_texture
from app.images.decoding import decode
from app.search.confidence import SHIPPED, Curve, curve_for
from app.search.regions import choose_windows, limits_of, object_vectors, seen_photo
from app.search.vector_cache import PhotoObjects
from app.search.windows import TILES, Windows, likeness, window_grid
from app.types import Model, Region, Vector, Vectors
from app.vectors import round_to_float16
from bench.data.pasted_photos import SETS
from bench.search.cross_fitting import Judged, half, interval, report_divisions, report_lead

FALSE_ALARMS = 0.05


@dataclass(frozen=True)
class Photo:
    """A query photo with the skus and the boxes of the products it shows."""

    path: Path
    skus: tuple[str, ...]
    boxes: tuple[Region, ...]


@dataclass(frozen=True)
class Answer:
    """Similarities of a photo to all products, of the whole and of each object; the objects' boxes,
    the cost in encodes, the lead that objects need to count (None: none) with the share of the gain
    in it, how many of them may, how much more similar the first object is to its best picture than
    the whole is, and what tells whether a product fills the photo (None where the whole was the
    answer)."""

    whole: NDArray[np.float32]
    objects: tuple[NDArray[np.float32], ...]
    boxes: tuple[Region, ...]
    cost: float
    lead: float | None = None
    share: float = 0.0
    counting: int = 0
    gain: float = 0.0
    seen: PhotoObjects | None = None

    @property
    def led_by(self) -> float:
        """The lead of the first object, -inf without any."""
        if not self.objects:
            return -np.inf
        return float(self.objects[0].max() - self.whole.max() + self.share * self.gain)

    @property
    def leads(self) -> bool:
        """Whether the objects count in the merged list."""
        return bool(self.objects) and (self.lead is None or self.led_by >= self.lead)

    @property
    def merged(self) -> NDArray[np.float32]:
        """The best similarities of each product."""
        if not self.leads:
            return self.whole
        return np.asarray(np.max([self.whole, *self.objects[: self.counting]], axis=0))


class CachedEncoder:
    """The embedded encoder, with its vectors kept in a folder."""

    def __init__(self, folder: Path) -> None:
        self._encoder = PairEncoder.load()
        name, revision = self._encoder.name, self._encoder.revision
        self.model = Model(0, name, revision, 0, self._encoder.fingerprint)
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
        key = f"{path.parent.name}/{path.name} {place}"
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
        key = f"{path.parent.name}/{path.name} windows"
        if key not in self._kept:
            picture = decode(path.read_bytes())
            feature_map = self._encoder.encode_map(picture)
            self._kept[key] = self._encoder.pool_windows(feature_map, regions)
            tiles = self._encoder.pool_windows(feature_map, TILES)
            self._kept[f"{key} alike"] = np.float32(likeness(tiles))
            self._kept[f"{key} texture"] = np.float32(border_texture(picture))
        texture, alike = (float(self._kept[f"{key} {name}"]) for name in ("texture", "alike"))
        width, height = map_input_size(size, STRIDE, MAP_PIXELS[NEWEST])
        return Windows(regions, self._kept[key], texture, alike), width * height / SIDE**2


class Catalogue:
    """The vectors of all pictures, by product, and the products that show the same picture."""

    def __init__(self, data: Path, white: Path | None, encoder: CachedEncoder) -> None:
        """`white` holds the pictures that take the place of a product's own; None: no product's."""
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
                cut_out = white / f"{sku}.jpg" if white else None
                paths = [data / name / image for image in row["images"].split("|")]
                for path in [cut_out] if cut_out and cut_out.exists() else paths:
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

    def gain(self, vectors: Vectors, whole: Vector, absent: NDArray[np.bool_]) -> float:
        """How much more similar the best of `vectors` is to its best picture than `whole` is; the
        pictures of `absent` products do not count."""
        found = self._vectors @ vectors.T
        found[np.repeat(absent, np.diff(self._first, append=len(found)))] = -1
        best = int(found.max(axis=1).argmax())
        return float(found[best].max() - self._vectors[best] @ whole)


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
    catalogue: Catalogue, encoder: CachedEncoder, photo: Photo,
    passing: NDArray[np.bool_] | None = None,
) -> Answer:  # fmt: skip
    """What a search finds; `passing` are the products in the catalogue, None: all."""
    absent = np.zeros(len(catalogue.skus), bool) if passing is None else ~passing

    def similarities(vectors: Vectors) -> NDArray[np.float32]:
        found = catalogue.similarities(vectors)
        found[:, absent] = -1
        return found

    [whole] = similarities(encoder.picture(photo.path)[None])
    limits = limits_of(encoder.model)
    if whole.max() >= limits.sure:
        return Answer(whole, (), (), 1.0)
    windows, map_cost = encoder.windows(photo.path)
    found = similarities(windows.vectors)
    best = (found if limits.lead is None else found - whole).max(axis=1)
    chosen = choose_windows(windows.regions, best.astype(np.float64), limits.most)
    boxes = tuple(windows.regions[each.index] for each in chosen)
    crops = [encoder.picture(photo.path, box) for box in boxes[: limits.exact]]
    objects = tuple(
        similarities(np.stack(object_vectors(windows, each, crop))).max(axis=0)
        for each, crop in zip_longest(chosen, crops)
    )
    cost = 1 + map_cost + len(crops)
    first = object_vectors(windows, chosen[0], crops[0] if crops else None)
    gain = catalogue.gain(np.stack(first), encoder.picture(photo.path), absent)
    seen = seen_photo(float(whole.max()), windows, encoder.picture(photo.path))
    return Answer(whole, objects, boxes, cost, limits.lead, limits.gain, limits.merged, gain, seen)


def rank(similarities: NDArray[np.float32], expected: Sequence[int]) -> int:
    """The rank of a product, 0 is first; products in `expected` show the same picture."""
    best = similarities[expected].max()
    return int((similarities > best + 1e-6).sum())


def photos(data: Path, sets: Path, count: int, every: int) -> dict[str, list[Photo]]:
    """The photos of each set: pasted (the first `count` of each), clothing queries, and grocery
    queries (every so many), packaged and loose."""
    groups: dict[str, list[Photo]] = {}
    for row in rows(sets / "queries.csv"):
        boxes = [tuple(map(float, box.split("/"))) for box in row["boxes"].split("|")]
        photo = Photo(sets / row["query"], tuple(row["skus"].split("|")), tuple(boxes))  # type: ignore[arg-type]
        group = groups.setdefault(row["set"], [])
        group += [photo] if len(group) < count else []
    packaged = {row["sku"]: row["packaged"] for row in rows(data / "grocery" / "catalogue.csv")}
    for name, step in (("clothing", 1), ("grocery", every)):
        for row in rows(data / name / "queries.csv")[::step]:
            sku, path = row["expected_sku"], data / name / row["query"]
            kind = {None: "clean", "1": "packaged", "0": "loose"}[packaged.get(sku)]
            groups.setdefault(kind, []).append(Photo(path, (sku,), ((0, 0, 1, 1),)))
    return groups


def judged(catalogue: Catalogue, encoder: CachedEncoder, group: Sequence[Photo]) -> list[Judged]:
    """What the lead that objects need is fitted on."""
    found = []
    for photo in group:
        each, expected = answer(catalogue, encoder, photo), catalogue.same[photo.skus[0]]
        together = rank(replace(each, lead=None).merged, expected)
        found.append(Judged(photo.skus[0], rank(each.whole, expected), together, each.led_by))
    return found


def report(catalogue: Catalogue, encoder: CachedEncoder, name: str, group: list[Photo]) -> None:
    """Print recall of the whole, of the merged list and of the true box, and the cost."""
    whole, merged, boxed, costs = [], [], [], []
    for photo in group:
        found = answer(catalogue, encoder, photo)
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
        found = answer(catalogue, encoder, photo)
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
    present, absent = with_and_without(catalogue, encoder, group)
    yes, no = best_similarities(present), best_similarities(absent)
    halves = np.array([half(photo.skus[0]) for photo in group])
    detected, alarms = [], []
    for side in (False, True):
        cut_off = np.quantile(yes[halves != side], FALSE_ALARMS)
        detected += list(no[halves == side] < cut_off)
        alarms += list(yes[halves == side] < cut_off)
    print(
        f"{name}: absent categories detected {np.mean(detected):.3f} at {np.mean(alarms):.3f} "
        "false alarms by one cut-off, fitted on the other half of the products"
    )
    for share in (0.01, 0.02, 0.05, 0.1, 0.2):
        cut_off = np.quantile(yes, share)
        found = np.mean(no < cut_off)
        print(f"  {share:.0%} false alarms below {cut_off:.3f}: {found:.3f} detected")
    print(f"  {fit(yes, no, FALSE_ALARMS)}")
    if encoder.model.fingerprint in SHIPPED:
        report_shipped(catalogue, encoder.model, group, present, absent)


def report_shipped(
    catalogue: Catalogue,
    model: Model,
    group: list[Photo],
    present: Sequence[Answer],
    absent: Sequence[Answer],
) -> None:
    """Print how often the shipped curves say "no close match", and how often that is right: the
    product is not in the catalogue, or it is not the first match."""
    said = [
        np.array([not is_close(model, found) for found in answers]) for answers in (present, absent)
    ]
    wrong = np.array(
        [
            rank(found.merged, catalogue.same[photo.skus[0]]) > 0
            for photo, found in zip(group, present, strict=True)
        ]
    )
    right = said[1].sum() + (said[0] & wrong).sum()
    print(
        f"  shipped: says no close match for {said[1].mean():.3f} of absent and "
        f"{said[0].mean():.3f} of present ones; right {right / max(sum(map(np.sum, said)), 1):.3f}"
    )


def is_close(model: Model, found: Answer) -> bool:
    """Whether a search calls its best match close."""
    leads = found.lead is not None and found.leads
    photo = found.seen or PhotoObjects(float(found.whole.max()))
    curve = curve_for(model, replace(photo, leads=leads))
    assert curve is not None
    return bool(found.merged.max() >= curve.close)


def with_and_without(
    catalogue: Catalogue, encoder: CachedEncoder, group: list[Photo]
) -> tuple[list[Answer], list[Answer]]:
    """The answers to photos with their product in the catalogue, and without all products of its
    category."""
    present = [answer(catalogue, encoder, photo) for photo in group]
    absent = [
        answer(
            catalogue, encoder, photo, catalogue.categories != catalogue.category[photo.skus[0]],
        )
        for photo in group
    ]  # fmt: skip
    return present, absent


def best_similarities(answers: Sequence[Answer]) -> NDArray[np.float64]:
    """The best similarity in each answer, (n,)."""
    return np.array([found.merged.max() for found in answers], np.float64)


def fit(yes: NDArray[np.float64], no: NDArray[np.float64], share: float) -> Curve:
    """Logistic regression of presence on similarity, with equal weight of both kinds, and the
    similarity that a share of the photos of present products does not reach."""

    def loss(parameters: NDArray[np.float64]) -> float:
        midpoint, width = parameters[0], np.exp(parameters[1])
        present = np.logaddexp(0, (midpoint - yes) / width).mean()
        absent = np.logaddexp(0, (no - midpoint) / width).mean()
        return float(present + absent)

    start = np.array([(np.median(yes) + np.median(no)) / 2, np.log(0.05)])
    midpoint, width = minimize(loss, start, method="Nelder-Mead").x
    return Curve(
        round(float(midpoint), 4),
        round(float(np.exp(width)), 4),
        round(float(np.quantile(yes, share)), 4),
    )


def main() -> None:
    """Parse the command line and print everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("sets", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100, help="pasted photos of each set")
    parser.add_argument("--every", type=int, default=4, help="of the grocery queries, every Nth")
    arguments = parser.parse_args()
    encoder = CachedEncoder(arguments.cache)
    groups = photos(arguments.data, arguments.sets, arguments.count, arguments.every)
    white = Catalogue(arguments.data, arguments.sets / "white", encoder)
    real = Catalogue(arguments.data, None, encoder)
    for name, group in groups.items():
        if name == "two":
            report_two(white, encoder, group)
        else:
            report(white if name in SETS else real, encoder, name, group)
        encoder.save()
    if limits_of(encoder.model).lead is not None:
        sets = {
            name: judged(white if name in SETS else real, encoder, groups[name])
            for name in ("plain", "packaged", "loose")
        }
        report_lead(sets, ("packaged", "loose"))
        report_divisions(sets, ("packaged", "loose"))
    for name in ("clean", "plain", "packaged", "loose"):
        report_absent(white if name in SETS else real, encoder, name, groups[name])
        encoder.save()


if __name__ == "__main__":
    main()
