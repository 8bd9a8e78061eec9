"""60 labelled queries by words over two catalogues: most relevant products are on the first page.

Relevant is a product whose category, colour and brand are those that the query means, and whose
title has the words that it means; `bench/data/word_queries.csv` names these fields and the skus.
The queries and their labels were written before the search was tuned, and those of the set `aside`
were asked when it was finished. Recall@10 of a query is the share of the relevant products among
the first ten, of at most ten.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.bootstrap import App
from app.config import Settings
from app.types import Product, Query
from support.colours import choose_colours
from support.paths import REPO
from support.shop import add_products

QUERIES = REPO / "bench" / "data" / "word_queries.csv"


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def as_product(row: dict[str, str]) -> Product:
    fields = {name: row.get(name) or None for name in ("brand", "category", "colour")}
    return Product(row["sku"], row["title"], **fields)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def rows(test_data: Path) -> list[dict[str, str]]:
    """The rows of both catalogues."""
    return [
        row for name in ("clothing", "grocery") for row in read(test_data / name / "catalogue.csv")
    ]


@pytest.fixture(scope="module")
def shop(
    server_home: Path, tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]],
    shared_filled_database: Any,
) -> Iterator[App]:  # fmt: skip
    """Both catalogues with one drawn picture: only their words are searched."""

    def fill(app: App) -> None:
        add_products(app, [(as_product(row), [1]) for row in rows])

    folder = tmp_path_factory.mktemp("words")
    settings = Settings(home=folder, database_url=shared_filled_database(fill))
    with App(settings, choose=choose_colours) as app:
        yield app


def recall(app: App, words: str, relevant: set[str]) -> float:
    result = app.search.search(Query(words=words, words_by="catalogue", k=10))
    return len(relevant & {match.product.sku for match in result.matches}) / min(len(relevant), 10)


@pytest.mark.parametrize("part", ["tuning", "aside"])
def test_recall_at_10_of_the_labelled_queries_is_at_least_nine_tenths(shop: App, part: str) -> None:
    queries = [row for row in read(QUERIES) if row["set"] == part]
    shares = {
        row["words"]: recall(shop, row["words"], {*row["skus"].split("|")}) for row in queries
    }
    missed = {words: share for words, share in shares.items() if share < 1}
    assert sum(shares.values()) / len(shares) >= 0.9, missed


def test_the_labels_are_the_products_whose_fields_are_asked_for(
    rows: list[dict[str, str]],
) -> None:
    labelled = read(QUERIES)
    assert len(labelled) == 60 and sum(row["set"] == "aside" for row in labelled) == 20
    for query in labelled:
        asked = {name: query[name] for name in ("category", "colour", "brand") if query[name]}
        fitting = [
            row["sku"]
            for row in rows
            if all(row.get(name) == value for name, value in asked.items())
            and query["title"].lower() in row["title"].lower()
        ]
        assert query["skus"].split("|") == fitting and fitting, query["words"]
