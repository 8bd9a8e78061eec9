"""Over random catalogues, one statement answers as several do."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import psycopg
import pytest

from app.bootstrap import App
from app.search import page_budget
from support.random_shop import random_query, refill
from support.statements import Slow, in_statements, told

CATALOGUES = 15
QUERIES = 3
PAGES = 2


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
                query = replace(query, shown=(*query.shown, *found.shown))
    assert by_one > by_several
