"""Search by words: recall of the labelled queries, and speed in a large catalogue.

    python -m bench.search.words [--data FOLDER] [--rows 100000] [--rounds 15]

FOLDER holds `clothing/catalogue.csv` and `grocery/catalogue.csv`; their products are loaded with
one drawn picture, and recall@10 of the queries in `bench/data/word_queries.csv` is printed for the
set that the search was tuned with and the one kept aside. Then words are searched among `--rows`
generated products, measured alternately, each with the ratio to a word that one in a hundred has.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from sqlalchemy import text

from app.bootstrap import App
from app.catalog.batch_write import Batch, ProductEntry
from app.types import PictureData, PictureRef, Product, Query
from bench.data.catalogue import catalogue
from bench.data.vectors import DIM
from bench.harness.side_by_side import BenchmarkReport, measure_alternately, ratio

QUERIES = Path(__file__).parents[1] / "data" / "word_queries.csv"

RARE = "a word of one in a hundred"
SPEEDS: Mapping[str, str] = {
    RARE: "kestrel",
    "two words": "amber lantern",
    "three words": "amber lantern kestrel",
    "three words, none has all": "lantern kestrel alder",
    "a word misspelt": "kestrle",
    "three words, two misspelt": "ambre lantren kestrel",
    "a word that half has": "lantern",
    "a word that all have": "ovar",
    "two words that half and all have": "lantern ovar",
    "an unfinished word": "kest",
    "a sku": "s777",
}

# Every product has the last word, every second the first; the brands are one in a hundred.
TITLES = """
UPDATE product SET title = concat_ws(' ',
        CASE WHEN id % 2 = 0 THEN 'lantern' ELSE 'kettle' END,
        (ARRAY['amber', 'ivory', 'scarlet', 'teal', 'umber'])[1 + id / 2 % 5], 'n' || id, 'ovar'),
    brand = CASE id % 100 WHEN 4 THEN 'kestrel' WHEN 5 THEN 'alder' ELSE 'b' || id % 100 END"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the catalogues with labelled queries")
    parser.add_argument("--rows", type=int, default=100_000, help="0: no speed is measured")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    report = BenchmarkReport("words", "Search by words")
    if options.data is not None:
        measure_recall(report, options.data)
    if options.rows:
        measure_speed(report, options.rows, options.rounds)
    report.write()


def measure_recall(report: BenchmarkReport, data: Path) -> None:
    rows = [row for name in ("clothing", "grocery") for row in read(data / name / "catalogue.csv")]
    with catalogue(1, own=True) as app:
        load(app, rows)
        queries = read(QUERIES)
        for part in ("tuning", "aside"):
            shares = {
                row["words"]: recall(app, row["words"], {*row["skus"].split("|")})
                for row in queries
                if row["set"] == part
            }
            report.row(
                queries=part, number=len(shares), recall_at_10=float(np.mean(list(shares.values())))
            )
            for words, share in shares.items():
                if share < 1:
                    report.note(f"{part}: {words!r} has recall {share:.2f}")


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV with a header."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def load(app: App, rows: list[dict[str, str]]) -> None:
    """Write the products of the rows, all with one drawn picture."""
    vector = np.random.default_rng(0).standard_normal(DIM).astype(np.float32)
    sha = b"drawn picture".ljust(32)
    entries = [
        ProductEntry(
            Product(row["sku"], row["title"], row.get("brand"), row["category"], row.get("colour")),
            (PictureRef(sha, "drawn.png"),),
        )
        for row in rows
    ]
    vectors = {sha: vector / np.linalg.norm(vector)}
    batch = Batch(entries, {sha: PictureData(sha, 1, 1, b"jpeg")}, vectors)
    app.catalog.write(batch, app.catalog.model())


def recall(app: App, words: str, relevant: set[str]) -> float:
    """The share of the relevant products among the first ten, of at most ten."""
    found = app.search.search(Query(words=words, words_by="catalogue", k=10)).matches
    return len(relevant & {match.product.sku for match in found}) / min(len(relevant), 10)


def measure_speed(report: BenchmarkReport, rows: int, rounds: int) -> None:
    with catalogue(rows, own=True) as app:
        with app.engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text(TITLES))
        with app.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("SET statement_timeout = 0"))
            connection.execute(text("VACUUM ANALYZE"))
        measured = measure_alternately(dict(searches(app)), rounds, warmup=2)
        for name, words in SPEEDS.items():
            times = ratio(measured[name], measured[RARE])
            report.row(words=f"{name}: {words}", ms=1000 * measured[name].p50, ratio=times)


def searches(app: App) -> Iterator[tuple[str, Callable[[], None]]]:
    """The searches by name, each as a page asks it."""
    for name, words in SPEEDS.items():

        def search(words: str = words) -> None:
            app.search.search(Query(words=words, k=12, fold=True))

        yield name, search


if __name__ == "__main__":
    main()
