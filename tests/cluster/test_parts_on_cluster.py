"""Builds in parts that are searched by actors on a Ray cluster, while these and nodes are lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.types import Filters, Query
from support.colours import choose_colours
from support.random_shop import random_query, refill
from support.two_forms import BothForms, answered, small_parts

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.ray]

FILTERS = (
    Filters(), Filters({"category": "blazer"}), Filters({"colour": "red"}),
    Filters({"brand": "Kestrel"}),
)  # fmt: skip


@pytest.fixture
def app(settings: Settings, nodes: Any) -> Iterator[App]:
    on_cluster = settings.model_copy(
        update={"search_on": nodes.address, "part_cpus": 0.01, "part_wait_s": 60.0}
    )
    with App(on_cluster, choose=choose_colours) as app:
        yield app


@pytest.fixture
def forms(app: App, monkeypatch: pytest.MonkeyPatch) -> BothForms:
    small_parts(monkeypatch)
    return BothForms(app, part_rows=14)


@pytest.fixture
def skus(app: App, forms: BothForms, sql: psycopg.Connection) -> list[str]:
    found = refill(app, sql, Random(5))
    app.search.open_index()
    return found


def queries(app: App, skus: list[str], count: int) -> list[Query]:
    random = Random(1)
    found = []
    for number in range(count):
        query = replace(random_query(app, random, skus), filters=FILTERS[number % len(FILTERS)])
        shown = tuple(each.product.sku for each in app.search.search(query).matches)
        found += [query, replace(query, shown=shown)]
    return found


def test_actors_answer_as_one_file_does(
    app: App, forms: BothForms, skus: list[str], sql: psycopg.Connection
) -> None:
    asked = queries(app, skus, 16)
    found = [app.search.search(query) for query in asked]
    assert {"faiss", "faiss-filtered"} <= {
        each.plan.path for each in found if each.plan.build == forms.parts.id
    }
    assert not [each for each in found if each.plan.reason_code == "part"]
    with forms.only_one_file(sql):
        expected = [app.search.search(query) for query in asked]
    assert [answered(each) for each in found] == [answered(each) for each in expected]
