"""Products with titles as shops write them, one in ten of which is a duplicate of another one.

Row n shows vector n of the catalogue. Products of one cluster are of one kind, as products that
look alike mostly are. Every tenth product is the one before it listed again: with the words in
another order or another year, and either with the same picture or with another photo of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from app.duplicates.normalization import identity_key
from app.types import Product, Vectors

KINDS = (
    "backpack", "belt", "blazer", "boots", "bracelet", "cap", "cardigan", "clutch", "coat", "dress",
    "earrings", "flip flops", "gloves", "handbag", "heels", "hoodie", "jacket", "jeans", "jumper",
    "kurta", "leggings", "loafers", "necklace", "polo shirt", "pyjamas", "raincoat", "sandals",
    "scarf", "shirt", "shorts", "skirt", "sneakers", "socks", "sunglasses", "sweatshirt", "tie",
    "top", "trousers", "wallet", "watch",
)  # fmt: skip
COLOURS = (
    "beige", "black", "blue", "brown", "cream", "green", "grey", "navy", "pink", "purple", "red",
    "white",
)  # fmt: skip
FOR = ("men", "women", "kids", "unisex")
BRANDS = 300
SERIES = 400
SERIES_SHARE = 0.7
"""Share of the titles that name a series; the others are brand, colour and kind only."""

EVERY = 10
"""Every so many products one is a duplicate of the product before it."""

DUPLICATE_SPREAD = 0.15
"""Expected distance of the vectors of two photos of one product, before normalisation."""


def titled_products(clusters: NDArray[np.int64], first: int = 0) -> Iterator[tuple[Product, str]]:
    """A product with its identity key for each row from `first` on, whose clusters are given, shape
    (n,). `first` is a multiple of EVERY; other blocks of rows are other products."""
    random = np.random.default_rng([2, first] if first else 2)
    rows = len(clusters)
    brands = np.minimum(random.zipf(1.3, rows), BRANDS)
    series = np.where(random.random(rows) < SERIES_SHARE, random.integers(0, SERIES, rows), -1)
    colours, persons = random.integers(0, len(COLOURS), rows), random.integers(0, len(FOR), rows)
    syllables = ("kal", "dor", "min", "vet", "sol", "ran", "tis", "bel", "nor", "hav")
    for row in range(rows):
        n = row - 1 if is_duplicate(row) else row
        kind, colour, person = KINDS[clusters[n] % len(KINDS)], COLOURS[colours[n]], FOR[persons[n]]
        brand = "".join(syllables[int(digit)] for digit in str(brands[n])).title()
        words = [brand, person, colour, kind]
        if series[n] >= 0:
            words.insert(1, "".join(syllables[int(digit)] for digit in str(series[n] + 1000)))
        if is_duplicate(row):
            words = [*words[1:], words[0]] if row % 3 else [*words, "2024"]
        product = Product(
            f"S{first + row + 1}", " ".join(words).title(), brand, kind, colour, 2020 + row % 5,
        )  # fmt: skip
        yield product, identity_key(product)


def is_duplicate(row: int) -> bool:
    """Whether the product of a row, from 0 on, is the one before it listed again."""
    return row % EVERY == EVERY - 1


def shows_same_picture(row: int) -> bool:
    """Whether the product of a row shows the picture of the one before it: half of the duplicates
    do."""
    return row % (2 * EVERY) == EVERY - 1


def with_duplicates(vectors: Vectors, seed: int) -> Vectors:
    """The unit vectors (n, dim) with those of duplicates near the row before them.

    The block must begin with a row that is no duplicate.
    """
    random = np.random.default_rng(seed)
    again = np.flatnonzero([is_duplicate(row) for row in range(len(vectors))])
    dim = vectors.shape[1]
    steps = random.standard_normal((len(again), dim)).astype(np.float32)
    vectors = vectors.copy()
    vectors[again] = vectors[again - 1] + steps * np.float32(DUPLICATE_SPREAD / dim**0.5)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
