"""Hostile queries: how much longer than an ordinary search does one take that drops everything?

    python -m bench.search.hostile_queries [--rows 20000] [--rounds 7]

A default search (twelve products, duplicates folded) by a photo and by a word, alone and with
thresholds that drop all but the first product, as anybody can write into the address of the page;
and a word that half of the products have. All are measured alternately, with the ratio to a search
by photo.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from sqlalchemy import text

from app.bootstrap import App
from app.types import Query
from bench.data.catalogue import catalogue
from bench.data.vectors import generate_vectors
from bench.harness.side_by_side import BenchmarkReport, measure_alternately, ratio
from bench.search.words import TITLES

ORDINARY = "a photo"
WORDS = {
    "a word of one in a hundred": "kestrel",
    "a word that half have": "lantern",
    "a word that all have": "ovar",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=20_000, help="products")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    report = BenchmarkReport("hostile_queries", "Queries that drop nearly everything")
    with catalogue(options.rows, own=True) as app:
        with app.engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text(TITLES))
        with app.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE product, product_words"))
        app.indexer.rebuild()
        measured = measure_alternately(searches(app), options.rounds, warmup=2)
    for name, seconds in measured.items():
        times = ratio(seconds, measured[ORDINARY])
        report.row(query=name, time=seconds, to_a_photo=times)
    report.write()


def searches(app: App) -> dict[str, Callable[[], None]]:
    """The searches by name."""
    vector = generate_vectors(1, 1)[0] + 0.01
    photo = Query(vector=vector, model_id=app.catalog.model().id, k=12, fold=True)
    every = Query(words="ovar", words_by="catalogue", k=12, fold=True, near_match=2.0)
    queries = {
        ORDINARY: photo,
        "a photo, near=2": replace(photo, near_match=2.0),
        "a photo, all like it dropped": replace(photo, near_query=2.0),
        "a word that all have, near=2": every,
    }
    queries |= {
        name: Query(words=words, words_by="catalogue", k=12, fold=True)
        for name, words in WORDS.items()
    }

    def search(query: Query) -> None:
        app.search.search(query)

    return {name: partial(search, query) for name, query in queries.items()}


if __name__ == "__main__":
    main()
