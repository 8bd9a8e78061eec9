"""What a search finds in the benchmarks' photos: products by the whole photo and by its objects.

DATA holds `clothing/` and `grocery/`, SETS what `bench.data.pasted_photos` wrote. Vectors are kept
in a folder, by the encoder's fingerprint.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.encoders.base import EMBEDDED
from app.encoders.efficientnet_pair import SIDE
from app.encoders.embedded_versions import MAP_PIXELS, NEWEST
from app.encoders.feature_map import STRIDE, map_input_size
from app.encoders.loading import load_encoder
from app.images.border_texture import border_texture
from app.images.decoding import decode
from app.search.region_comparison import NEAREST
from app.search.regions import best_windows, limits_of, object_vectors, seen_photo
from app.search.retrieval import WINDOW_NOMINEES
from app.search.vector_cache import PhotoObjects
from app.search.windows import TILES, Windows, likeness, window_grid
from app.types import Model, Region, Vector, Vectors
from app.vectors import round_to_float16


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
        self._encoder = load_encoder(EMBEDDED)
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


@dataclass(frozen=True)
class NearestPictures:
    """A `Comparison` of windows with pictures, whose vectors (n, dim) are in memory."""

    model: Model
    vectors: Vectors

    def nearest(self, whole: Vector) -> Sequence[float]:
        """The best similarities to pictures."""
        return nearest(self.vectors @ whole)

    def pictures(self, near: Vectors) -> Vectors:
        """As many pictures as an index nominates for each of `near`, by exact similarity."""
        order = np.argpartition(-(near @ self.vectors.T), WINDOW_NOMINEES, axis=1)
        chosen: Vectors = self.vectors[np.unique(order[:, :WINDOW_NOMINEES])]
        return chosen


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

    def comparison(self, model: Model, absent: NDArray[np.bool_]) -> NearestPictures:
        """What windows are compared with: the pictures of all but the `absent` products."""
        pictures = np.repeat(~absent, np.diff(self._first, append=len(self._vectors)))
        return NearestPictures(model, self._vectors[pictures])

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
    comparison = catalogue.comparison(encoder.model, absent)
    chosen = best_windows(comparison, windows, encoder.picture(photo.path)) or []
    boxes = tuple(windows.regions[each.index] for each in chosen)
    crops = [encoder.picture(photo.path, box) for box in boxes[: limits.exact]]
    objects = tuple(
        similarities(np.stack(object_vectors(windows, each, crop))).max(axis=0)
        for each, crop in zip_longest(chosen, crops)
    )
    cost = 1 + map_cost + len(crops)
    first = object_vectors(windows, chosen[0], crops[0] if crops else None)
    gain = catalogue.gain(np.stack(first), encoder.picture(photo.path), absent)
    seen = seen_photo(nearest(whole), windows, encoder.picture(photo.path))
    return Answer(whole, objects, boxes, cost, limits.lead, limits.gain, limits.merged, gain, seen)


def nearest(similarities: NDArray[np.float32]) -> list[float]:
    """The best NEAREST similarities to products, the best first; products that are absent have a
    similarity of -1."""
    return [float(each) for each in np.sort(similarities[similarities > -1])[::-1][:NEAREST]]


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
