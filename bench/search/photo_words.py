"""Photo and a colour in words: is the first product of the photo's kind and of that colour?

    LOOKALIKE_HOME=… python -m bench.search.photo_words FOLDER

FOLDER holds the photos and `queries.csv`, and its catalogue has been ingested. The queries are
`bench/data/photo_words.csv`: a product by its sku, a word, and the category and colour that the
first product of the answer should have. The colour is one that at least one other product of the
category has. They were drawn before the search was tuned; those of the part `held out` were asked
when it was finished. Each is asked with the product's own photo and with the one of `queries.csv`,
which shows the same object photographed again.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from app.bootstrap import App
from app.types import Query

QUERIES = Path(__file__).parents[1] / "data" / "photo_words.csv"


@dataclass(frozen=True, slots=True)
class LabelledQuery:
    """A product whose photo is searched with a word, and what the first match should be."""

    sku: str
    words: str
    category: str
    colour: str
    part: str


@dataclass(frozen=True, slots=True)
class Score:
    """How many of the queries of a part have the right first product, and which have not."""

    part: str
    photo: str
    queries: int
    right: int
    wrong: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    with App() as app:
        for score in scores(app, folder, read_queries()):
            print(json.dumps(asdict(score)))


def read_queries() -> list[LabelledQuery]:
    """The labelled queries."""
    with QUERIES.open(encoding="utf-8", newline="") as file:
        return [LabelledQuery(**row) for row in csv.DictReader(file)]


def scores(app: App, folder: Path, queries: Sequence[LabelledQuery]) -> Iterator[Score]:
    """The score of each part of the queries, by the product's own photo and by the one again."""
    photos = {
        "own": {row["sku"]: row["images"].split("|")[0] for row in _rows(folder / "catalogue.csv")},
        "again": {row["expected_sku"]: row["query"] for row in _rows(folder / "queries.csv")},
    }
    for part in dict.fromkeys(query.part for query in queries):
        chosen = [query for query in queries if query.part == part]
        for name, files in photos.items():
            wrong = [
                f"{query.sku} {query.words}"
                for query in chosen
                if not is_right(app, query, (folder / files[query.sku]).read_bytes())
            ]
            yield Score(part, name, len(chosen), len(chosen) - len(wrong), tuple(wrong))


def is_right(app: App, query: LabelledQuery, photo: bytes) -> bool:
    """Whether the first match has the expected category and colour."""
    result = app.search.search(Query(picture=photo, words=query.words, k=12, fold=True))
    first = result.matches[0].product
    return (first.category, first.colour) == (query.category, query.colour)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
