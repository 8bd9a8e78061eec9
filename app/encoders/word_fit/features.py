"""What the text side is fitted on: vectors of photos with their kind and colours, and of recoloured
ones."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.encoders.base import Encoder
from app.encoders.embedded_versions import NEWEST, SIDES
from app.encoders.square_pictures import square
from app.encoders.word_fit.recolour import COLOURS, PATTERNS, Cutout, cut_out, shade, shown_colours
from app.images.decoding import decode
from app.types import Vectors

RECOLOURED = 272
"""Photos that are recoloured, as many of each kind."""

PATTERNED = 2
"""Patterns of those that each of them is drawn with."""

SEED = 50

Texts = NDArray[np.str_]


@dataclass(frozen=True)
class Features:
    """Vectors (n, dim) of photos and what is known of them.

    `kinds` and `skus` are texts, `shown` is how much of each of COLOURS a photo of clothing has,
    `looks` the colour or the pattern of a recoloured photo.
    """

    clothing: Vectors
    clothing_skus: Texts
    clothing_kinds: Texts
    shown: NDArray[np.float32]
    grocery: Vectors
    grocery_kinds: Texts
    recoloured: Vectors
    recoloured_skus: Texts
    looks: Texts

    def save(self, path: Path) -> None:
        """Write them for `load`."""
        np.savez(path, **{each.name: getattr(self, each.name) for each in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Features:
        """Read the file that `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(**{each.name: file[each.name] for each in fields(cls)})


def of_photos(data: Path, encoder: Encoder) -> Features:
    """The features of the photos in a folder with `clothing/` and `grocery/`."""
    clothing, grocery = first_photos(data / "clothing"), first_photos(data / "grocery")
    chosen = _evenly(clothing, np.random.default_rng(SEED))
    drawn, shown = [], []
    for number, (sku, _, path) in enumerate(clothing):
        rng = np.random.default_rng([SEED, number])
        cutout = cut_out(_squared(path), rng)
        shown.append(shown_colours(cutout, rng))
        if sku in chosen:
            drawn.append(_recoloured(sku, cutout, encoder, rng))
    grocery += _shop_photos(data / "grocery", {sku: kind for sku, kind, _ in grocery})
    return Features(
        _vectors(encoder, [path for _, _, path in clothing]),
        np.array([sku for sku, _, _ in clothing]),
        np.array([kind for _, kind, _ in clothing]),
        np.stack(shown).astype(np.float32),
        _vectors(encoder, [path for _, _, path in grocery]),
        np.array([kind for _, kind, _ in grocery]),
        *(np.concatenate(each) for each in zip(*drawn, strict=True)),
    )


def first_photos(folder: Path) -> list[tuple[str, str, Path]]:
    """The first photo of each product that no earlier one has: sku, kind and path."""
    found: dict[Path, tuple[str, str, Path]] = {}
    for row in _rows(folder / "catalogue.csv"):
        path = folder / row["images"].partition("|")[0]
        found.setdefault(path, (row["sku"], kind_name(row["category"]), path))
    return list(found.values())


def kind_name(category: str) -> str:
    """A category as the lexicon writes it."""
    return category.lower().replace("-", " ")


def _shop_photos(folder: Path, kinds: dict[str, str]) -> list[tuple[str, str, Path]]:
    return [
        (row["expected_sku"], kinds[row["expected_sku"]], folder / row["query"])
        for row in _rows(folder / "queries.csv")
    ]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _squared(path: Path) -> NDArray[np.uint8]:
    return np.array(square(decode(path.read_bytes()), SIDES[NEWEST]))


def _vectors(encoder: Encoder, paths: list[Path]) -> Vectors:
    rows = [
        encoder.encode_pictures([decode(path.read_bytes()) for path in paths[start : start + 16]])
        for start in range(0, len(paths), 16)
    ]
    return np.concatenate(rows)


def _recoloured(
    sku: str, cutout: Cutout, encoder: Encoder, rng: np.random.Generator
) -> tuple[Vectors, Texts, Texts]:
    """Vectors of a photo in all colours and some patterns, half of them before a studio's
    background, with its sku and their looks."""
    patterns = rng.choice(PATTERNS, PATTERNED, replace=False)
    drawn = [cutout.recoloured(shade(colour, rng)) for colour in COLOURS]
    drawn += [cutout.patterned(pattern, rng) for pattern in patterns]
    drawn = [cutout.in_studio(each, rng) if rng.random() < 0.5 else each for each in drawn]
    looks = np.array([*COLOURS, *patterns])
    return encoder.encode_prepared(drawn), np.full(len(drawn), sku), looks


def _evenly(photos: list[tuple[str, str, Path]], rng: np.random.Generator) -> set[str]:
    """RECOLOURED skus, drawn from all kinds in turn."""
    of_kind = defaultdict(list)
    for place in rng.permutation(len(photos)):
        sku, kind, _ = photos[place]
        of_kind[kind].append(sku)
    most = max(map(len, of_kind.values()))
    turns = (skus[turn] for turn in range(most) for skus in of_kind.values() if turn < len(skus))
    return set(list(turns)[:RECOLOURED])
