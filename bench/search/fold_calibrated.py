"""What folds up to the cut that `lookalike calibrate` fits, cross-fitted.

    python -m bench.search.fold_calibrated CATALOGUE.csv [--model embedded] [--vectors FILE.npz]

The pairs are those of `bench.search.fold_cut`. The cut is fitted as `lookalike calibrate` does
without verdicts: to the products with two pictures, and to the nearest pictures of other products.
It is fitted on all products, and on halves of them, which fold the other half; with several samples
of the pictures whose nearest ones are looked for. `--vectors` keeps the vectors.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from app.duplicates import evidence
from app.evaluation.calibration import fit_same_product
from app.evaluation.calibration_run import SEARCHES
from bench.data import generic_titles
from bench.search.fold_cut import SPLITS, Catalogue, Cut, folded, read_vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--revision", default="2-", help="of the model, as `lookalike model list`")
    parser.add_argument("--vectors", type=Path, help="read from here, or written")
    options = parser.parse_args()
    rows = generic_titles.read(options.source)
    vectors = read_vectors(rows, options.source.parent, options.model, options.vectors)
    catalogue = Catalogue(rows, vectors, generic_titles.same_products(rows))
    share = evidence.generic_share(options.model, options.revision)
    everywhere = [(catalogue, fit(catalogue, seed)) for seed in range(SPLITS)]
    tell("fitted on all", everywhere, share)
    held_out = []
    partner = dict(catalogue.same)
    firsts = [row["sku"] for row in rows if row["sku"] not in partner.values()]
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(firsts))
        halves = [{firsts[n] for n in order[start::2].tolist()} for start in (0, 1)]
        for half in halves:
            half.update([partner[sku] for sku in half if sku in partner])
        for fitted_on, other in (halves, halves[::-1]):
            held_out.append((catalogue.part(other), fit(catalogue.part(fitted_on), seed)))
    tell("cross-fitted", held_out, share)


def fit(catalogue: Catalogue, seed: int) -> float | None:
    """The cut of "same product" among the products, with a sample as large as a calibration's."""
    skus, owners, stacked = [], [], []
    for number, row in enumerate(catalogue.rows):
        skus.append(row["sku"])
        for vector in catalogue.vectors[row["sku"]].astype(np.float64):
            owners.append(number)
            stacked.append(vector / np.linalg.norm(vector))
    owner, matrix = np.array(owners), np.stack(stacked)
    number_of = {sku: number for number, sku in enumerate(skus)}
    same = {
        frozenset((number_of[a], number_of[b]))
        for a, b in catalogue.same
        if {a, b} <= number_of.keys()
    }
    own = [
        1 - float(matrix[first] @ matrix[first + 1])
        for first in np.flatnonzero(owner[:-1] == owner[1:])
    ]
    nearest = []
    for place in np.random.default_rng(seed).permutation(len(owner))[:SEARCHES]:
        twins = {each for pair in same if owner[place] in pair for each in pair}
        others = ~np.isin(owner, [owner[place], *twins])
        nearest.append(1 - float((matrix[others] @ matrix[place]).max()))
    return fit_same_product(own, nearest).distance


def tell(name: str, fitted: list[tuple[Catalogue, float | None]], share: float) -> None:
    """Print the cuts, and what they fold, pooled."""
    cuts = [cut for _, cut in fitted if cut is not None]
    print(f"{name}: {len(cuts)} cuts of {len(fitted)}: {', '.join(f'{c:.3f}' for c in cuts)}")
    for titles in ("own", "generic"):
        known = true = false = 0
        for catalogue, cut in fitted:
            if cut is not None:
                own = map(generic_titles.product, catalogue.rows)
                products = list(own if titles == "own" else map(generic_titles.generic, own))
                report = folded(catalogue, products, Cut(cut, share))
                known, true = known + report.known, true + report.true
                false += report.false
        print(
            f"  {titles} titles: {true} of {known} true pairs fold, {false} false; "
            f"precision {true / max(true + false, 1):.3f}, recall {true / known:.3f}"
        )


if __name__ == "__main__":
    main()
