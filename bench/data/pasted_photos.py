"""Makes labelled photos: products of a catalogue pasted onto photos of a shop.

    python -m bench.data.pasted_photos DATA OUT [--count 200] [--seed 8]

DATA holds `clothing/` and `grocery/`. OUT receives the photos, `queries.csv` (set, query, the sku
and the box of each object), and `white/`: the cut-outs on white, as a shop would photograph them.
The sets are `plain` (the object has 40 to 65 % of the shorter side), `small` (25 to 40 %), `large`
(65 to 90 %), `two` (two objects with 35 to 50 %), and `hand` (40 to 65 %, onto photos in which
somebody's hand holds another product). No photo of DATA shows more of a person: `hand_photos.csv`
names the 210 of the 486 photos of groceries that show a hand, and no clothes are worn. The same
DATA, count and seed give the same photos; another seed
gives other products, scenes and places, for photos that nothing was fitted on.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from app.images.decoding import decode
from app.types import Region
from bench.data.cut_outs import cut_out

SEED = 8
SHAPES = ((480, 480), (640, 480), (480, 640))
"""Sizes of the photos (width, height)."""

SETS = {
    "plain": (0.40, 0.65), "small": (0.25, 0.40), "large": (0.65, 0.90), "two": (0.35, 0.50),
    "hand": (0.40, 0.65),
}  # fmt: skip
"""Longer side of an object as a share of the photo's shorter side, in the order of drawing."""

HANDS = Path(__file__).with_name("hand_photos.csv")
"""The photos of groceries that show a hand."""

GROCERY_SHARE = 0.2
"""Share of the objects that are groceries; the others are clothes."""


@dataclass(frozen=True)
class CutOut:
    """A product's sku and its object: RGBA, cropped to the mask."""

    sku: str
    object: Image.Image


@dataclass(frozen=True)
class PastedPhoto:
    """A photo with the products that were pasted onto it, and their boxes."""

    picture: Image.Image
    skus: tuple[str, ...]
    boxes: tuple[Region, ...]


def main() -> None:
    """Parse the command line and write the sets."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=200, help="photos in each set")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    write(arguments.data, arguments.out, arguments.count, arguments.seed)


def write(data: Path, out: Path, count: int, seed: int = SEED) -> None:
    """Write all sets, each with `count` photos."""
    rng = np.random.default_rng(seed)
    cuts = {
        name: cut_outs(data / name, rng, int(1.1 * count * share) + 1)
        for name, share in (("clothing", 1 - GROCERY_SHARE), ("grocery", GROCERY_SHARE))
    }
    (out / "white").mkdir(parents=True, exist_ok=True)
    for cut in (*cuts["clothing"], *cuts["grocery"]):
        on_white(cut.object).save(out / "white" / f"{cut.sku}.jpg", quality=92)
    scenes = sorted((data / "grocery" / "queries").glob("*.jpg"))
    with HANDS.open(encoding="utf-8", newline="") as file:
        hands = {Path(row["query"]).name for row in csv.DictReader(file)}
    with (out / "queries.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("set", "query", "skus", "boxes"))
        for name, size in SETS.items():
            shown = [scene for scene in scenes if scene.name in hands] if name == "hand" else scenes
            for number in range(count):
                chosen = [_choose(cuts, rng) for _ in range(2 if name == "two" else 1)]
                photo = paste(chosen, size, _scene(shown, rng), rng)
                query = f"{name}-{number:03}.jpg"
                photo.picture.save(out / query, quality=90)
                boxes = ["/".join(f"{edge:.4f}" for edge in box) for box in photo.boxes]
                rows.writerow((name, query, "|".join(photo.skus), "|".join(boxes)))
    print(f"{len(cuts['clothing'])} clothes, {len(cuts['grocery'])} groceries cut out")


def cut_outs(folder: Path, rng: np.random.Generator, count: int) -> list[CutOut]:
    """The objects of up to `count` products whose photo gives a clean mask, in random order."""
    with (folder / "catalogue.csv").open(encoding="utf-8", newline="") as file:
        products = [(row["sku"], row["images"].split("|")[0]) for row in csv.DictReader(file)]
    seen: set[str] = set()
    cuts: list[CutOut] = []
    for index in rng.permutation(len(products)):
        sku, image = products[index]
        if len(cuts) < count and image not in seen:
            seen.add(image)
            cut = cut_out(decode((folder / image).read_bytes()))
            cuts += [] if cut is None else [CutOut(sku, cut)]
    return cuts


def paste(
    cuts: Sequence[CutOut], size: tuple[float, float], scene: Image.Image, rng: np.random.Generator
) -> PastedPhoto:
    """Cut-outs pasted onto a scene without touching each other, their longer sides a share in
    `size` of the scene's shorter side."""
    picture, boxes = scene.copy(), []
    for part, cut in zip(_parts(scene.size, len(cuts), rng), cuts, strict=True):
        width, height = part[2] - part[0], part[3] - part[1]
        side = rng.uniform(*size) * min(scene.size)
        longest = max(cut.object.size)
        scale = min(side / longest, width / cut.object.width, height / cut.object.height)
        shape = [max(8, int(edge * scale)) for edge in cut.object.size]
        scaled = cut.object.resize((shape[0], shape[1]), Image.Resampling.BICUBIC)
        left = part[0] + int(rng.integers(0, max(1, width - shape[0] + 1)))
        top = part[1] + int(rng.integers(0, max(1, height - shape[1] + 1)))
        picture.paste(scaled, (left, top), scaled)
        right, bottom = left + shape[0], top + shape[1]
        boxes.append(
            (left / scene.width, top / scene.height, right / scene.width, bottom / scene.height)
        )
    return PastedPhoto(picture, tuple(cut.sku for cut in cuts), tuple(boxes))


def on_white(cut: Image.Image) -> Image.Image:
    """A cut-out in the middle of a white square, with a margin of a twelfth of its side."""
    side = int(max(cut.size) * 1.2)
    square = Image.new("RGB", (side, side), (255, 255, 255))
    square.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2), cut)
    return square


def _parts(
    size: tuple[int, int], count: int, rng: np.random.Generator
) -> Iterator[tuple[int, int, int, int]]:
    """The whole, or its two halves along the longer side, in random order."""
    width, height = size
    if count == 1:
        yield 0, 0, width, height
        return
    wide = width > height or (width == height and bool(rng.integers(2)))
    halves = [(0, 0, width // 2, height), (width // 2, 0, width, height)]
    if not wide:
        halves = [(0, 0, width, height // 2), (0, height // 2, width, height)]
    for index in rng.permutation(2):
        yield halves[index]


def _choose(cuts: dict[str, list[CutOut]], rng: np.random.Generator) -> CutOut:
    kind = "grocery" if rng.random() < GROCERY_SHARE else "clothing"
    return cuts[kind][int(rng.integers(len(cuts[kind])))]


def _scene(paths: Sequence[Path], rng: np.random.Generator) -> Image.Image:
    """A random part of a random photo, mirrored at random, in one of SHAPES."""
    photo = decode(paths[int(rng.integers(len(paths)))].read_bytes())
    width, height = SHAPES[int(rng.integers(len(SHAPES)))]
    scale = min(photo.width / width, photo.height / height) * rng.uniform(0.8, 1)
    part = int(width * scale), int(height * scale)
    left = int(rng.integers(0, photo.width - part[0] + 1))
    top = int(rng.integers(0, photo.height - part[1] + 1))
    cropped = photo.crop((left, top, left + part[0], top + part[1]))
    scene = cropped.resize((width, height), Image.Resampling.BICUBIC)
    mirrored = bool(rng.integers(2))
    return scene.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else scene


if __name__ == "__main__":
    main()
