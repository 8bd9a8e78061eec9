"""How many of the first pairs that the page Duplicates asks about are one product.

    python -m bench.search.pair_queue DATA

Two catalogues with known pairs, embedded encoder: `clothing` of DATA, whose duplicates are listed
in another year or notation, and a studio's of the same garments, one pose on white, with other
colours as other products and second listings under other words
(`bench.data.studio_catalogue`). The order of the queue against that of the distance alone, of the
same candidates. `--loaded NAME=HOME` takes a catalogue that was loaded before, and
`--studio FOLDER` one that was written before.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from app.bootstrap import App
from app.config import Settings
from app.db.embedded import server as embedded_server
from app.duplicates.review import ReviewCursor, next_pair
from bench.data import generic_titles, studio_catalogue
from bench.harness.side_by_side import BenchmarkReport
from ingest.load import load

FIRST = (20, 50, 100)
"""Pairs at the beginning of the queue."""

Pair = tuple[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--loaded", action="append", default=[], metavar="NAME=HOME")
    parser.add_argument("--studio", type=Path)
    options = parser.parse_args()
    loaded = dict(each.split("=", 1) for each in options.loaded)
    report = BenchmarkReport("pair_queue", "The first pairs to judge that are one product")
    with tempfile.TemporaryDirectory(prefix="lookalike-bench-") as folder:
        clothing = options.data / "clothing" / "catalogue.csv"
        known = {"clothing": generic_titles.same_products(generic_titles.read(clothing))}
        studio = options.studio or Path(folder, "studio")
        if options.studio is None:
            studio_catalogue.write(options.data, studio, 500, 90)
        pairs = generic_titles.read(studio / "pairs.csv")
        known["studio"] = [(row["sku_a"], row["sku_b"]) for row in pairs]
        sources = {"clothing": clothing, "studio": studio / "catalogue.csv"}
        for name, source in sources.items():
            home = Path(loaded.get(name, Path(folder, f"{name}-home")))
            measure(report, name, home, None if name in loaded else source, known[name])
    report.write()


def measure(
    report: BenchmarkReport, name: str, home: Path, source: Path | None, known: Sequence[Pair]
) -> None:
    """Read the whole queue of a catalogue, which is loaded from its source, if there is one."""
    home.mkdir(exist_ok=True)
    with App(Settings(home=home, model="embedded")) as app:
        if source is not None:
            app.initialise()
            load(app.engine, app.catalog, app.encoders, app.limits, source)
        queue = read_queue(app)
    if source is not None:
        embedded_server.stop(home)
    true = {frozenset(pair) for pair in known}
    print(f"{name}: {len(true)} pairs are one product, {len(queue)} are asked about")
    by_distance = sorted(queue, key=lambda each: (each[1], each[0]))
    shares = {}
    for order, pairs in (("distance alone", by_distance), ("the queue", queue)):
        told = [frozenset(pair) in true for pair, _distance in pairs]
        shares[order] = {n: sum(told[:n]) / min(n, len(told)) for n in FIRST}
        report.row(
            catalogue=name, order=order,
            **{f"first {n}": f"{share:.2f}" for n, share in shares[order].items()},
        )  # fmt: skip
    for n in FIRST:
        gain = shares["the queue"][n] - shares["distance alone"][n]
        report.goal(f"{name}: share of the first {n} above that by distance alone", gain, 0.0)


def read_queue(app: App) -> list[tuple[Pair, float]]:
    """The pairs as one reviewer is asked about them, each with its distance (3 without one)."""
    asked: list[tuple[Pair, float]] = []
    cursor = ReviewCursor()
    while not cursor.finished:
        pair, cursor = next_pair(app.engine, cursor, app.settings.typo_similarity)
        if pair is not None:
            asked.append((pair.skus, 3.0 if pair.distance is None else pair.distance))
    return asked


if __name__ == "__main__":
    main()
