"""The text side of the embedded encoder, asked for what it was not fitted on.

    python -m bench.search.embedded_words DATA NAMES [--features FILE]

DATA, NAMES and FILE are those of `python -m app.encoders.word_fit`. Each figure is the share of the
first ten pictures that are right, of as many as there are (P@10), beside that of pictures in any
order (chance):

- kinds never seen: the fit had no photo of the kind and no recoloured one; asked by its name
- products never seen: the fit had the other four fifths of the products, of all kinds
- photos never seen: the fit had the other half of the photos, which may show the same products
- looks: the fit had none of the products that are asked for, whose colours and patterns people see
  are in `bench/data/visible_colours.csv`; the first colour of a product only, or any of those
- a colour and a kind: both by that fit, in one text, of pairs that at least three products are
- the same, ranked by the colours of the pixels too (`app/search/colour_ranking.py`), to which
  nothing is fitted, with 95 % intervals of the differences over the names that are asked for

and how many names it knows that are misspelt, and how many that are none.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.encoders import colour_words
from app.encoders.word_fit import directions, names
from app.encoders.word_fit.__main__ import kept_features
from app.encoders.word_fit.directions import Matrix
from app.encoders.word_fit.features import Features, first_photos
from app.encoders.word_fit.fit import without_kind, without_products
from app.encoders.word_fit.recolour import PATTERNS
from app.encoders.word_space import FILES, MIN_CONFIDENCE, WordSpace
from app.images.colours import colours_of_thumbnail
from app.images.decoding import decode
from app.images.thumbnails import thumbnail
from app.search import colour_ranking
from app.types import Hit
from bench.harness.side_by_side import BenchmarkReport

VISIBLE = Path(__file__).parents[1] / "data" / "visible_colours.csv"
FOLDS = 5
LEAST = 3
"""Pictures that must be right for a colour to be asked for."""

Flags = NDArray[np.bool_]


class Fits:
    """Directions of names by fits on parts of the features."""

    def __init__(self, features: Features, folder: Path) -> None:
        self.features = features
        wordnet = names.read_wordnet(folder)
        networks = names.read_classes(folder, wordnet)
        wordnet.place(networks)
        kinds = {*map(str, features.clothing_kinds), *map(str, features.grocery_kinds)}
        looks = directions.look_directions(features)
        lexicon = names.read_lexicon(networks)
        self.names = names.all_names(wordnet, lexicon, sorted(kinds), looks)

    @cached_property
    def classes(self) -> Matrix:
        return directions.class_directions()

    def direction(self, name: str, features: Features, *, looks: bool = False) -> Matrix:
        """The direction of a name by a fit on these features, for a similarity spread of one."""
        learned = self.kinds(features) if not looks else {}
        of_looks = directions.look_directions(features) if looks else {}
        found = directions.mixed(self.names[name], self.classes, learned, of_looks)
        if found is None:
            return np.zeros(self.classes.shape[1])
        return directions.spread(found[None], self.features.clothing)[0]

    def kinds(self, features: Features) -> dict[str, Matrix]:
        found = directions.kind_directions(features.grocery, features.grocery_kinds)
        return found | directions.kind_directions(features.clothing, features.clothing_kinds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("names", type=Path)
    parser.add_argument("--features", type=Path)
    options = parser.parse_args()
    fits = Fits(kept_features(options.data, options.features), options.names)
    report = BenchmarkReport("embedded_words", "The words of the embedded encoder")
    measure_kinds(report, fits)
    measure_looks(report, fits, options.data)
    measure_spelling(report, WordSpace.load(FILES["2"]))
    report.write()


def measure_kinds(report: BenchmarkReport, fits: Fits) -> None:
    of = fits.features
    for name, vectors, kinds in (
        ("clothing", of.clothing, of.clothing_kinds),
        ("grocery", of.grocery, of.grocery_kinds),
    ):
        asked, unknown = {}, []
        for kind in map(str, np.unique(kinds)):
            direction = fits.direction(kind, without_kind(of, kind))
            if direction.any():
                asked[kind] = precision(vectors @ direction, kinds == kind)
            else:
                unknown.append(kind)
        add(report, f"{name}: kinds never seen", asked, kinds)
        if unknown:
            report.note(f"Without photos nothing is known of {', '.join(unknown)}.")
    fold = np.random.default_rng(0).integers(0, FOLDS, len(of.clothing))
    shares: dict[str, list[float]] = {}
    for number in range(FOLDS):
        part = without_products(of, list(of.clothing_skus[fold == number]))
        for kind in map(str, np.unique(of.clothing_kinds)):
            similarities = of.clothing[fold == number] @ fits.direction(kind, part)
            right = of.clothing_kinds[fold == number] == kind
            shares.setdefault(kind, []).append(precision(similarities, right))
    means = {kind: float(np.mean(each)) for kind, each in shares.items()}
    add(report, "clothing: products never seen", means, of.clothing_kinds)
    half = np.random.default_rng(0).permutation(len(of.grocery)) % 2
    shares = {}
    for number in (0, 1):
        seen = half != number
        part = replace(of, grocery=of.grocery[seen], grocery_kinds=of.grocery_kinds[seen])
        for kind in map(str, np.unique(of.grocery_kinds)):
            right = of.grocery_kinds[~seen] == kind
            if right.any():
                similarities = of.grocery[~seen] @ fits.direction(kind, part)
                shares.setdefault(kind, []).append(precision(similarities, right))
    means = {kind: float(np.mean(each)) for kind, each in shares.items()}
    add(report, "grocery: photos never seen, of kinds seen", means, of.grocery_kinds)


def measure_looks(report: BenchmarkReport, fits: Fits, data: Path) -> None:
    with VISIBLE.open(encoding="utf-8", newline="") as file:
        seen = {row["sku"]: row for row in csv.DictReader(file)}
    of = fits.features
    held_out = np.isin(of.clothing_skus, list(seen))
    vectors, kinds = of.clothing[held_out], of.clothing_kinds[held_out]
    rows = [seen[sku] for sku in of.clothing_skus[held_out]]
    part = without_products(of, list(seen))
    colours = [row["colours"].split("|") for row in rows]
    first = np.array([each[0] for each in colours])
    patterns = np.array([row["pattern"] for row in rows])
    found = {
        look: fits.direction(look, part, looks=True)
        for look in (*sorted({*first} - {""}), *PATTERNS)
    }
    common = [look for look in found if (first == look).sum() >= LEAST]
    asked = {look: precision(vectors @ found[look], first == look) for look in common}
    add(report, "colours, the first of a product", asked, first)
    anyone = {look: np.array([look in each for each in colours]) for look in common}
    either = {look: precision(vectors @ found[look], anyone[look]) for look in common}
    chance = float(np.mean([right.mean() for right in anyone.values()]))
    report.row(
        asked="colours, any of a product", number=len(either), p_at_10=_mean(either), chance=chance
    )
    shown = _visible(data, list(of.clothing_skus[held_out]))
    by_pixels = {look: _by_colours(vectors @ found[look], [look], shown) for look in common}
    after = {look: precision(by_pixels[look], first == look) for look in common}
    add(report, "colours of pixels, the first of a product", after, first)
    _compare(report, "colours, the first of a product", asked, after)
    after = {look: precision(by_pixels[look], anyone[look]) for look in common}
    report.row(
        asked="colours of pixels, any of a product", number=len(after), p_at_10=_mean(after),
        chance=chance,
    )  # fmt: skip
    _compare(report, "colours, any of a product", either, after)
    asked = {look: precision(vectors @ found[look], patterns == look) for look in PATTERNS}
    add(report, "patterns", asked, patterns)
    of_kinds = {str(kind): fits.direction(str(kind), part) for kind in np.unique(kinds)}
    both = dict(_pairs(vectors, kinds, anyone, found, of_kinds, shown))
    found_both, after_both, chances = zip(*both.values(), strict=True)
    for name, shares in (("", found_both), (", colours of pixels", after_both)):
        report.row(
            asked=f"a colour and a kind{name}", number=len(both), p_at_10=float(np.mean(shares)),
            chance=float(np.mean(chances)),
        )  # fmt: skip
    before, after = (dict(zip(both, each, strict=True)) for each in (found_both, after_both))
    _compare(report, "a colour and a kind", before, after)


def _pairs(
    vectors: NDArray[np.float32],
    kinds: NDArray[np.str_],
    colours: dict[str, Flags],
    looks: dict[str, Matrix],
    of_kinds: dict[str, Matrix],
    shares: dict[int, NDArray[np.float32]],
) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """The precision, that with the colours of the pixels, and the chance of each pair that at least
    LEAST products are."""
    for colour, shown in colours.items():
        for kind, direction in of_kinds.items():
            right = shown & (kinds == kind)
            if right.sum() >= LEAST:
                similarities = vectors @ (looks[colour] + direction)
                by_pixels = _by_colours(vectors @ direction, [colour], shares)
                yield (
                    f"{colour} {kind}",
                    (
                        precision(similarities, right),
                        precision(by_pixels, right),
                        float(right.mean()),
                    ),
                )


def _visible(data: Path, skus: list[str]) -> dict[int, NDArray[np.float32]]:
    """The colours of the first photo of each product, by its place in the list."""
    paths = {sku: path for sku, _, path in first_photos(data / "clothing")}
    found = {}
    for place, sku in enumerate(skus):
        stored = colours_of_thumbnail(thumbnail(decode(paths[sku].read_bytes())))
        found[place] = np.frombuffer(stored.shares, np.uint8).astype(np.float32) / 255
    return found


def _by_colours(
    similarities: NDArray[np.floating], colours: list[str], shares: dict[int, NDArray[np.float32]]
) -> NDArray[np.float64]:
    """A score of each picture by its similarity and the colours that it shows, as a search has."""
    hits = [Hit(place, place, 1 - float(each)) for place, each in enumerate(similarities)]
    ranked = colour_ranking.ranked(hits, colour_words.rows(colours, []), shares, {})
    scores = np.zeros(len(hits))
    scores[[hit.product_id for hit, _ in ranked]] = [score for _, score in ranked]
    return scores


def _compare(
    report: BenchmarkReport, asked: str, before: dict[str, float], after: dict[str, float]
) -> None:
    """A note with the mean difference and its 95 % interval, the names drawn anew."""
    differences = np.array([after[name] - before[name] for name in before])
    rng = np.random.default_rng(0)
    means = rng.choice(differences, (10_000, len(differences))).mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    report.note(
        f"{asked}: by the colours of the pixels {differences.mean():+.3f}"
        f" ({low:+.3f} to {high:+.3f}) over {len(differences)} names."
    )


def measure_spelling(report: BenchmarkReport, space: WordSpace) -> None:
    """How many names of one word are known with one letter left out, and how many shuffled ones."""
    rng = np.random.default_rng(0)
    words = [phrase for phrase in space.phrases if " " not in phrase and len(phrase) >= 6]
    chosen = [words[place] for place in rng.choice(len(words), 300, replace=False)]
    cut = [word[:place] + word[place + 1 :] for word in chosen for place in [len(word) // 2]]
    shuffled = ["".join(rng.permutation(list(word))) for word in chosen]
    alike = [
        float(space.read(typo).vector @ space.read(word).vector)
        for typo, word in zip(cut, chosen, strict=True)
    ]
    for name, texts in (("a letter missing", cut), ("letters shuffled", shuffled)):
        known = np.mean([space.read(text).confidence >= MIN_CONFIDENCE for text in texts])
        report.row(asked=name, number=len(texts), known=float(known))
    report.note(f"Without a letter, {np.mean(np.array(alike) > 0.99):.2f} keep their direction.")


def precision(similarities: NDArray[np.floating], right: Flags) -> float:
    """P@10: the share of right ones among the first ten, or as many as there are."""
    count = min(10, int(right.sum()))
    if not count:
        return float("nan")
    return float(right[np.argsort(-similarities, kind="stable")[:10]].sum() / count)


def add(
    report: BenchmarkReport, asked: str, shares: dict[str, float], labels: NDArray[np.str_]
) -> None:
    """A row with the mean over names, and a note with each."""
    chance = float(np.mean([(labels == name).mean() for name in shares]))
    report.row(asked=asked, number=len(shares), p_at_10=_mean(shares), chance=chance)
    report.note(f"{asked}: " + ", ".join(f"{name} {share:.1f}" for name, share in shares.items()))


def _mean(shares: dict[str, float]) -> float:
    return float(np.nanmean(list(shares.values())))


if __name__ == "__main__":
    main()
