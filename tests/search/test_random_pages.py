"""Over random catalogues, one statement answers as several do, and as a search without an index."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import psycopg
import pytest

from app.bootstrap import App
from app.search import page_budget, planner
from app.search.retrieval import Reason
from app.types import Query, SearchResult
from support.random_shop import random_query, refill
from support.statements import Slow, in_statements, told

CATALOGUES = 15
QUERIES = 3
PAGES = 4


def without_index(app: App, query: Query, monkeypatch: pytest.MonkeyPatch) -> SearchResult:
    """The result of comparing all pictures: nothing is nominated, and nothing passed over."""
    with monkeypatch.context() as patch:
        patch.setattr(app.search, "_in_one_statement", lambda *_: None)
        patch.setattr(planner, "open_build", lambda *_: Reason("no_build", "a test"))
        found = app.search.search(query)
    assert found.plan.path == "exact"
    return found


def test_one_statement_answers_random_queries_as_several_do(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fewer at first, so that products which fold or read alike are not on the page.
    monkeypatch.setattr(page_budget, "MIN_DEDUPLICATED", 4)
    slow, by_one, by_several = Slow(app), 0, 0
    for seed in range(CATALOGUES):
        random = Random(seed)
        skus = refill(app, sql, random)
        for _ in range(QUERIES):
            query = random_query(app, random, skus)
            for _ in range(PAGES):
                expected = in_statements(app, query, monkeypatch)
                slow.took()
                found = app.search.search(query)
                by_one, by_several = by_one + 1 - (took := slow.took()), by_several + took
                assert told(found) == told(expected), (seed, query)
                compared = without_index(app, query, monkeypatch)
                assert told(found) == told(compared), (seed, query)
                query = replace(query, shown=(*query.shown, *found.shown))
    assert by_one > by_several
