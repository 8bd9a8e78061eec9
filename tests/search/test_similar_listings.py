"""Similar listings of a match: those read, those only counted, and words that changed in SQL."""

from __future__ import annotations

import psycopg
import pytest

from app.bootstrap import App
from app.duplicates import verdicts
from app.duplicates.normalization import identity_key
from app.search import similar_listings
from app.search.explain import similar_number
from app.types import Filters, Match, Product
from support.shop import add
from support.text_encoder import ask

TITLE = "Marria lamp"


def same_words(sql: psycopg.Connection) -> None:
    """Give all products one title."""
    key = identity_key(Product("A", TITLE))
    sql.execute("UPDATE product SET title = %s, identity_key = %s", [TITLE, key])


def only_match(app: App, seed: int) -> Match:
    [match] = ask(app, seed, k=1, fold=True, listings=True).matches
    return match


def test_listings_are_counted_and_read_when_asked_for(app: App, sql: psycopg.Connection) -> None:
    add(app, {"A": [1], "B": [2], "C": [1]})
    same_words(sql)
    [match] = ask(app, 1, k=1, fold=True).matches
    assert [fold.product.sku for fold in match.folded] == ["C"]
    assert match.similar == () and match.similar_count == 1
    read = app.search.similar_listings(match)
    assert [each.product.sku for each in read.similar] == ["B"] and read.similar_count == 1
    assert only_match(app, 1) == read


def test_a_product_that_is_the_same_is_counted_until_the_listings_are_read(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, {"A": [1], "B": [2]})
    same_words(sql)
    verdicts.decide(app.engine, "A", "B", True, "a test")
    [match] = ask(app, 1, k=1, fold=True, filters=Filters({"sku": "A"})).matches
    assert match.similar_count == 1
    assert app.search.similar_listings(match).similar_count == 0


def test_folded_products_that_were_not_read_are_no_similar_listings(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similar_listings, "MAX_COMPARED", 3)
    add(app, {f"SAME{n}": [1] for n in range(8)})
    add(app, {"OTHER0": [2], "OTHER1": [3]})
    same_words(sql)
    match = only_match(app, 1)
    assert len(match.folded) == 7
    assert match.similar_count == 2


def test_very_many_listings_are_not_all_counted_and_the_text_says_so(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.db.queries.products.MAX_COUNTED", 3)
    add(app, {"A": [1], "B": [2], "C": [3]})
    same_words(sql)
    assert (match := only_match(app, 1)).similar_count == 2 and similar_number(match) == "2"
    add(app, {"D": [4]})
    same_words(sql)
    assert similar_number(only_match(app, 1)) == "3+"


def test_words_changed_in_sql_are_not_those_of_the_stored_key(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, {"A": [1], "B": [2], "C": [3]})
    same_words(sql)
    sql.execute("UPDATE product SET title = 'Corano shade' WHERE sku = 'B'")
    match = only_match(app, 1)
    assert match.product.sku == "A"
    assert [each.product.sku for each in match.similar] == ["C"] and match.similar_count == 1
