"""How many pictures the fast path fetches, and when it fetches more or fewer."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from app.bootstrap import App
from app.db.queries.single_statement import StatementRequest
from app.index.faiss_index import AnnIndex
from app.search.adaptive_fetch import RETRIAL_SEARCHES
from app.search.retrieval import RETRY_FACTOR, FetchRound, initial_fetch
from app.types import Query
from support.copies import copied_for
from support.fast_path_shop import ask, fill, seen
from support.shop import add, numbered, vectors
from support.statements import Slow

COPIES = """
WITH original AS (
    SELECT pic.*, vec FROM product AS p JOIN product_picture ON product_id = p.id
    JOIN picture AS pic ON pic.id = picture_id JOIN embedding USING (picture_id)
    WHERE sku = 'P0000'
), copies AS (
    INSERT INTO picture (sha256, width, height, thumbnail)
    SELECT sha256(convert_to('copy ' || n, 'UTF8')), width, height, thumbnail
    FROM generate_series(1, 600) AS n, original
    RETURNING id
), embedded AS (
    INSERT INTO embedding (model_id, picture_id, vec) SELECT 1, copies.id, vec
    FROM copies, original
), shown AS (INSERT INTO product (sku) SELECT 'C' || id FROM copies RETURNING id, sku)
INSERT INTO product_picture SELECT shown.id, copies.id, 0, ''
FROM shown JOIN copies ON shown.sku = 'C' || copies.id"""
"""600 copies of the photo of P0000, each the picture of a product of its own."""


def fetches(app: App, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The pictures that each further fetch round of the fast path nominates."""
    fetched: list[int] = []
    assert app.search._fast_path is not None
    run = app.search._fast_path._run

    def noted(index: AnnIndex, request: StatementRequest, fetch_round: FetchRound) -> Any:
        fetched.append(fetch_round.n)
        return run(index, request, fetch_round)

    monkeypatch.setattr(app.search._fast_path, "_run", noted)
    return fetched


database_url = copied_for("slow", fill)


def test_many_pictures_per_product_widen_the_first_fetch(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products with many pictures each: the first fetch round has too few products."""
    shown = {f"P{n:02}": [30 * n + m for m in range(30)] for n in range(12)}
    add(app, shown)
    app.indexer.rebuild()
    ask(app)
    slow, fetched = Slow(app), fetches(app, monkeypatch)
    result = ask(app, k=12)
    assert len({match.product_id for match in result.matches}) == 12
    assert fetched == [initial_fetch(12), RETRY_FACTOR * initial_fetch(12)]
    fetched.clear()
    ask(app, k=12)
    assert fetched[0] == 2 * initial_fetch(12)
    assert not slow.took()


def test_copies_of_a_photo_do_not_widen_later_searches(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No fetch round is complete among more copies than the larger round nominates."""
    add(app, numbered(60))
    sql.execute(COPIES)
    app.indexer.rebuild()
    ask(app, 1)
    slow, fetched = Slow(app), fetches(app, monkeypatch)
    for _ in range(3):
        assert {match.product.sku[0] for match in ask(app, 0).matches[1:]} == {"C"}
        assert fetched == [initial_fetch(10), RETRY_FACTOR * initial_fetch(10)]
        fetched.clear()
    assert slow.took(), "the planner answers"
    ask(app, 1)
    assert fetched == [initial_fetch(10)]


def test_new_products_of_earlier_pages_take_no_places_of_later_ones(
    app: App, sql: psycopg.Connection, slow: Slow
) -> None:
    """More of them than are compared: none is in the index, all are nearer than what is left."""
    first = ask(app, 0)
    sql.execute(COPIES)
    copies = [sku for (sku,) in sql.execute("SELECT sku FROM product WHERE sku LIKE 'C%'")]
    [vector] = vectors(app, [0])
    slow.took()
    query = Query(vector=vector, model_id=1, k=10, shown=tuple(copies))
    assert seen(app.search.search(query)) == seen(first)
    assert not slow.took()


def test_a_widened_fetch_narrows_again(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    add(app, {f"P{n:02}": [30 * n + m for m in range(30)] for n in range(12)})
    app.indexer.rebuild()
    ask(app)
    fetched = fetches(app, monkeypatch)
    ask(app, k=12)
    assert fetched == [initial_fetch(12), RETRY_FACTOR * initial_fetch(12)]
    for _ in range(RETRIAL_SEARCHES + 1):
        fetched.clear()
        ask(app, k=1)
    assert fetched == [initial_fetch(1)]
