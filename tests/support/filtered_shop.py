"""Products of which a filter passes one in ten, searches for them, and the expected results."""

from __future__ import annotations

import threading

import numpy as np
import psycopg
import pytest

from app.bootstrap import App
from app.search.filters import parse
from app.types import Query, SearchResult
from support.colours import photo
from support.shop import add, numbered, oracle, vectors

RED = parse(["colour=red"])
FEW = 12


def fill(app: App) -> None:
    """200 products, twenty of them red."""
    add(app, numbered(20), colour="red")
    add(app, numbered(180, first=20), colour="blue")
    app.indexer.rebuild()


def read_vectors_at_once(patch: pytest.MonkeyPatch) -> None:
    """A search that begins to read the vectors of a filter waits until they are read."""
    start = threading.Thread.start

    def run(thread: threading.Thread) -> None:
        thread.run() if thread.name == "filter vectors" else start(thread)

    patch.setattr(threading.Thread, "start", run)


def ask(app: App, seed: int = 1000, k: int = FEW, words: str = "colour=red") -> SearchResult:
    return app.search.search(Query(picture=photo(seed), k=k, filters=parse([words])))


def skus(result: SearchResult) -> list[str]:
    return [match.product.sku for match in result.matches]


def expected(app: App, sql: psycopg.Connection, where: str, k: int = FEW) -> list[str]:
    """The expected skus, computed by numpy; each product here has one picture of its own."""
    rows = sql.execute(
        "SELECT p.sku, e.picture_id, e.vec::text FROM product AS p"
        " JOIN product_picture AS pp ON pp.product_id = p.id"
        f" JOIN embedding AS e USING (picture_id) WHERE {where}"
    ).fetchall()
    named = {row[1]: row[0] for row in rows}
    table = {row[1]: np.array([float(x) for x in row[2].strip("[]").split(",")]) for row in rows}
    found = oracle(table, vectors(app, [1000])[0], k) if table else []
    return [named[id_] for id_, _ in found]
