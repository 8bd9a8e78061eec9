"""Fits how near the pictures of two products with the same words must be, and cross-validates it.

    python -m bench.search.fold_cut CATALOGUE.csv [--model embedded] [--vectors FILE.npz]

CATALOGUE.csv has distinctive titles, by which some products are the same, with other photos. True
pairs are those; false pairs have the same brand, colour and category, as generic titles would.

The cut is where 97 % of the true pairs agree, if their distances are lognormal (a quantile of the
sample depends on its two or three farthest pairs). The share of generic titles is the greatest
eighth at which no false pair agrees. The cross-fit does this on half of the products and folds the
other half, with its own titles and with generic ones. `--vectors` keeps the vectors.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import NormalDist, median

import numpy as np

from app.duplicates import evidence
from app.duplicates.evidence import FoldCuts, PictureEvidence, nearest_distances
from app.duplicates.folding import fold
from app.duplicates.groups import FoldCandidate
from app.duplicates.report import DuplicateReport, compare
from app.encoders.loading import choose_encoder
from app.images.decoding import decode
from app.types import Product, Vectors
from bench.data import generic_titles
from bench.data.generic_titles import Row

RECALL = 0.97
SAME_PHOTO = 0.001
"""Greatest distance of two identical photos."""

EIGHTHS = np.arange(8, 0, -1) / 8
SPLITS = 5
MIN_TYPO_SIMILARITY = 0.9

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Rows, the vectors of their pictures by sku, and the pairs that are the same product."""

    rows: Sequence[Row]
    vectors: Mapping[str, Vectors]
    same: Sequence[Pair]

    def part(self, skus: set[str]) -> Catalogue:
        """The rows of some skus, and their pairs."""
        rows = [row for row in self.rows if row["sku"] in skus]
        return Catalogue(rows, self.vectors, [pair for pair in self.same if set(pair) <= skus])


@dataclass(frozen=True, slots=True)
class Cut:
    """The fitted cut, and the share of it that applies to generic titles."""

    distance: float
    generic_share: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--revision", default="", help="of the model, as `lookalike model list`")
    parser.add_argument("--vectors", type=Path, help="read from here, or written")
    options = parser.parse_args()
    rows = generic_titles.read(options.source)
    vectors = read_vectors(rows, options.source.parent, options.model, options.vectors)
    catalogue = Catalogue(rows, vectors, generic_titles.same_products(rows))
    fitted = fit(catalogue)
    print(f"{options.model}: {len(rows)} products, {len(catalogue.same)} true pairs")
    print(f"fitted on all: cut {fitted.distance:.2f}, generic share {fitted.generic_share}")
    shipped = Cut(
        evidence.default_cut(options.model, options.revision),
        evidence.generic_share(options.model, options.revision),
    )
    print(f"shipped: cut {shipped.distance:.2f}, generic share {shipped.generic_share}")
    for name, cut in (("fitted", fitted), ("shipped", shipped)):
        for titles in ("own", "generic"):
            print(f"{name}, {titles} titles: {measure(catalogue, cut, titles)}")
    cross_fit(catalogue)


def read_vectors(
    rows: Sequence[Row], folder: Path, model: str, kept: Path | None
) -> dict[str, Vectors]:
    """The embeddings of the pictures of each product, rounded as in the table."""
    files = sorted({image for row in rows for image in row["images"].split("|")})
    if kept is not None and kept.exists():
        encoded = np.load(kept)["vectors"]
    else:
        encoder = choose_encoder(model).encoder
        side = encoder.input_side
        encoded = np.concatenate([
            encoder.encode_pictures([
                decode((folder / file).read_bytes(), at_least=side)
                for file in files[first : first + 32]
            ])
            for first in range(0, len(files), 32)
        ])  # fmt: skip
        if kept is not None:
            np.savez(kept, vectors=encoded)
    number = {file: place for place, file in enumerate(files)}
    rounded = encoded.astype(np.float16)
    return {row["sku"]: rounded[[number[f] for f in row["images"].split("|")]] for row in rows}


def fit(catalogue: Catalogue) -> Cut:
    """The cut and the share for generic titles, from the true and the false pairs."""
    true, false = distances(catalogue)
    logarithms = np.log(true[true > SAME_PHOTO])
    share_missed = (1 - RECALL) * len(true) / len(logarithms)
    spread = NormalDist().inv_cdf(1 - share_missed) * logarithms.std(ddof=1)
    distance = round(float(np.exp(logarithms.mean() + spread)), 2)
    shares = [share for share in EIGHTHS if not (false <= distance * share).any()]
    return Cut(distance, float(shares[0]) if shares else float(EIGHTHS[-1]))


def distances(catalogue: Catalogue) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the true pairs, and of the pairs that generic titles would make."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for row in catalogue.rows:
        alike.setdefault((row["brand"], row["colour"], row["category"]), []).append(row["sku"])
    same = {frozenset(pair) for pair in catalogue.same}
    true = [distance(catalogue, a, b) for a, b in catalogue.same]
    false = [
        distance(catalogue, a, b)
        for skus in alike.values()
        for a, b in combinations(skus, 2)
        if frozenset((a, b)) not in same
    ]
    return np.array(true), np.array(false)


def distance(catalogue: Catalogue, a: str, b: str) -> float:
    return float(nearest_distances([catalogue.vectors[a]], [catalogue.vectors[b]])[0, 0])


def measure(catalogue: Catalogue, cut: Cut, titles: str) -> str:
    """What folds and what should, and the share of products in a group with another article."""
    own = map(generic_titles.product, catalogue.rows)
    products = list(own if titles == "own" else map(generic_titles.generic, own))
    report = folded(catalogue, products, cut)
    wrong = {sku for pair in report.false_folds for sku in pair}
    astray = wrong | {sku for pair in report.misses for sku in pair}
    return (
        f"{report.true} of {report.known} true pairs fold, {report.false} false; "
        f"precision {report.precision or 0:.3f}, recall {report.recall:.3f}; "
        f"{len(wrong) / len(products):.2%} of the products in a wrong group, "
        f"{len(astray) / len(products):.2%} in a wrong or an incomplete one"
    )


def folded(catalogue: Catalogue, products: Sequence[Product], cut: Cut) -> DuplicateReport:
    """Fold the products with this cut."""

    def load(skus: Sequence[str]) -> PictureEvidence:
        vectors = {sku: catalogue.vectors[sku] for sku in skus}
        return PictureEvidence(vectors, FoldCuts(cut.distance, generic_share=cut.generic_share))

    candidates = [FoldCandidate(each, 1.0) for each in products]
    return compare(fold(candidates, [], MIN_TYPO_SIMILARITY, load), catalogue.same)


def cross_fit(catalogue: Catalogue) -> None:
    """Fit on half of the products and fold the other half, for several random halves."""
    partner = dict(catalogue.same)
    firsts = [row["sku"] for row in catalogue.rows if row["sku"] not in partner.values()]
    cuts: list[Cut] = []
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(firsts))
        halves = [{firsts[n] for n in order[start::2].tolist()} for start in (0, 1)]
        for half in halves:
            half.update([partner[sku] for sku in half if sku in partner])
        for fitted_on, held_out in (halves, halves[::-1]):
            cut = fit(catalogue.part(fitted_on))
            cuts.append(cut)
            print(f"split {seed}: cut {cut.distance:.2f}, generic share {cut.generic_share}")
            for titles in ("own", "generic"):
                print(f"  held out, {titles}: {measure(catalogue.part(held_out), cut, titles)}")
    print(f"median cut {median(cut.distance for cut in cuts):.3f}")


if __name__ == "__main__":
    main()
