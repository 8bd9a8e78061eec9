"""Makes a catalogue that a studio photographed: garments of one pose on white, a few listed twice.

    python -m bench.data.studio_catalogue DATA OUT [--count 500] [--again 90] [--seed 5]

DATA holds `clothing/`. Its garments with a clean mask are pasted onto white. Half of them are there
in another colour too, as another product: the same pose with another shirt. `again` of them are
listed once more, photographed again (turned, scaled, in other light, compressed): a third each
under the same words in another notation, under fewer words, and under words that say nothing. OUT
receives `catalogue.csv`, the pictures, and `pairs.csv` with the pairs that are one product.
"""

from __future__ import annotations

import argparse
import csv
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from app.duplicates.normalization import identity_key
from bench.data.generic_titles import Row, product, read
from bench.data.pasted_photos import cut_outs, on_white

SIDE = 480
COLOURS = {"red": 0, "green": 85, "blue": 165, "purple": 200}
"""Hues (0 to 255) that the other half is dyed in."""

COLUMNS = ("sku", "title", "brand", "category", "colour", "year", "price", "images")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=500, help="garments")
    parser.add_argument("--again", type=int, default=90, help="garments that are listed twice")
    parser.add_argument("--seed", type=int, default=5)
    arguments = parser.parse_args()
    write(arguments.data, arguments.out, arguments.count, arguments.again, arguments.seed)


def write(data: Path, out: Path, count: int, again: int, seed: int = 5) -> None:
    """Write the catalogue, and the pairs of skus that are one product."""
    rng = np.random.default_rng(seed)
    rows = {row["sku"]: row for row in read(data / "clothing" / "catalogue.csv")}
    cuts = cut_outs(data / "clothing", rng, count)
    out.mkdir(parents=True, exist_ok=True)
    written: list[Row] = []
    listings: dict[tuple[str, str], list[str]] = {}  # by the article and the colour it is dyed in
    for number, cut in enumerate(cuts):
        row, article = rows[cut.sku], identity_key(product(rows[cut.sku]))
        own = listings.setdefault((article, ""), [])
        own.append(row["sku"])
        photo = on_white(cut.object).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        written.append(_listed(out, row, row["sku"], photo))
        if number % 2:
            colour = list(COLOURS)[int(rng.integers(len(COLOURS)))]
            if colour != row["colour"]:
                title = row["title"].replace(row["colour"], colour)
                dyed = on_white(_dyed(cut.object, COLOURS[colour])).resize((SIDE, SIDE))
                other = row | {"title": title, "colour": colour}
                written.append(_listed(out, other, f"{row['sku']}-C", dyed))
                listings.setdefault((article, colour), []).append(written[-1]["sku"])
        if number < again:
            photo = _photographed_again(cut.object, rng)
            listed = _listed(out, row | _other_words(row, number % 3), f"{row['sku']}-A", photo)
            written.append(listed)
            own.append(listed["sku"])
    pairs = [pair for skus in listings.values() for pair in combinations(sorted(skus), 2)]
    order = rng.permutation(len(written))
    with (out / "catalogue.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(written[place] for place in order.tolist())
    with (out / "pairs.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("sku_a", "sku_b"), *pairs])


def _listed(out: Path, row: Row, sku: str, photo: Image.Image) -> Row:
    photo.save(out / f"{sku}.jpg", quality=92)
    return {name: row[name] for name in COLUMNS} | {"sku": sku, "images": f"{sku}.jpg"}


def _other_words(row: Row, kind: int) -> Row:
    """The words of a second listing: another notation, fewer words, or none that tell."""
    if kind == 0:
        return {"title": " ".join(reversed(row["title"].upper().split()))}
    if kind == 1:
        return {"title": f"{row['brand']} {row['category']}", "colour": ""}
    return {"title": row["category"], "brand": "", "colour": ""}


def _dyed(cut: Image.Image, hue: int) -> Image.Image:
    """A cut-out (RGBA) in another hue, strongly enough that white and black take it too."""
    pixels = np.asarray(cut.convert("RGB").convert("HSV")).copy()
    pixels[..., 0] = hue
    pixels[..., 1] = np.maximum(pixels[..., 1], 130)
    pixels[..., 2] = np.clip(pixels[..., 2], 60, 215)
    dyed = Image.fromarray(pixels, "HSV").convert("RGB")
    dyed.putalpha(cut.getchannel("A"))
    return dyed


def _photographed_again(cut: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A cut-out on white, a little turned, nearer or farther, moved, and in other light."""
    turned = cut.rotate(rng.uniform(-5, 5), Image.Resampling.BICUBIC, expand=True)
    side = int(max(turned.size) * rng.uniform(1.08, 1.35))
    square = Image.new("RGB", (side, side), (255, 255, 255))
    room = side - turned.width, side - turned.height
    place = int(room[0] * rng.uniform(0.3, 0.7)), int(room[1] * rng.uniform(0.3, 0.7))
    square.paste(turned, place, turned)
    light = ImageEnhance.Brightness(square).enhance(rng.uniform(0.8, 1.05))
    light = ImageEnhance.Color(light).enhance(rng.uniform(0.8, 1.15))
    return light.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


if __name__ == "__main__":
    main()
