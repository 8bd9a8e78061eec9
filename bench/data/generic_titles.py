"""A catalogue whose titles say no more than brand, colour and category, made from another one.

    python -m bench.data.generic_titles CATALOGUE.csv OUT.csv PAIRS.csv [--seed 0]

The rows of CATALOGUE.csv are shuffled and keep everything but their title. PAIRS.csv gets the pairs
that are the same product by the words of the former titles, which must be distinctive. Load it with
`lookalike ingest OUT.csv --images FOLDER`.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from app.duplicates.normalization import identity_key
from app.types import Product

Row = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = read(options.source)
    order = np.random.default_rng(options.seed).permutation(len(rows))
    with options.target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for number in order.tolist():
            title = generic(product(rows[number])).title
            writer.writerow(rows[number] | {"title": title})
    with options.pairs.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("sku_a", "sku_b"), *same_products(rows)])


def read(source: Path) -> list[Row]:
    """The rows of a catalogue with the columns sku, title, brand, category, colour and year."""
    with source.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def product(row: Row) -> Product:
    """The product of a row."""
    return Product(
        row["sku"], row["title"], row["brand"], row["category"], row["colour"], int(row["year"])
    )


def generic(original: Product) -> Product:
    """The product with the title "<brand> <colour> <category>"."""
    return replace(
        original, title=f"{original.brand} {original.colour} {original.category}".lower()
    )


def same_products(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """The pairs of skus whose titles agree but for year and notation."""
    by_key: dict[str, list[str]] = {}
    for row in rows:
        by_key.setdefault(identity_key(product(row)), []).append(row["sku"])
    return [pair for skus in by_key.values() for pair in combinations(sorted(skus), 2)]


if __name__ == "__main__":
    main()
