"""Where a part of a build does not answer, PostgreSQL compares its pictures, and the plan tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import numpy as np
import psycopg
import pytest

from app.bootstrap import App
from app.db.queries import pgvector_index
from app.index.id_selectors import ExcludedIds, IdSelector
from app.index.parted_index import PartAnswer, PartedIndex, PartSearcher
from app.search import missing_parts
from app.types import Filters, Query, Vectors
from support.random_shop import random_query, refill
from support.two_forms import BothForms, answered, small_parts

FILTERS = (
    Filters(), Filters({"category": "blazer"}), Filters({"colour": "red"}),
    Filters({"brand": "Kestrel"}),
)  # fmt: skip


@dataclass
class Away:
    """Parts of which some do not answer."""

    searcher: PartSearcher
    numbers: set[int] = field(default_factory=set)

    def search_parts(
        self, queries: Vectors, k: int, nprobe: int,
        selector: IdSelector | None, excluded: ExcludedIds | None,
    ) -> Sequence[PartAnswer | None]:  # fmt: skip
        found = self.searcher.search_parts(queries, k, nprobe, selector, excluded)
        return [None if n in self.numbers else each for n, each in enumerate(found)]


@pytest.fixture
def forms(app: App, monkeypatch: pytest.MonkeyPatch) -> BothForms:
    small_parts(monkeypatch)
    return BothForms(app)


def part_away(app: App, forms: BothForms, *numbers: int) -> Away:
    """The searcher of the open parts, of which these do not answer."""
    app.search.open_index()
    index = app.files.opened(forms.parts)
    assert isinstance(index, PartedIndex)
    away = Away(index.searcher, set(numbers))
    index.searcher = away
    return away


def test_answers_without_a_part_equal_those_with_it(
    app: App, forms: BothForms, sql: psycopg.Connection
) -> None:
    """With a delta, pages, folds, filters and products as queries."""
    random = Random(2)
    skus = refill(app, sql, random)
    away = part_away(app, forms)
    # So that filters search the index.
    sql.execute("INSERT INTO tuning (model_id, exact_pictures, deep_share) VALUES (1, 1, 0.5)")
    queries = []
    for number in range(24):
        query = replace(random_query(app, random, skus), filters=FILTERS[number % 4])
        shown = tuple(each.product.sku for each in app.search.search(query).matches)
        queries += [query, replace(query, shown=shown)]
    expected = [app.search.search(query) for query in queries]
    assert "part" not in {each.plan.reason_code for each in expected}
    for numbers in ({1}, {0, 2}):
        away.numbers = numbers
        found = [app.search.search(query) for query in queries]
        assert [answered(each) for each in found] == [answered(each) for each in expected]
        told = {each.plan.path: each.plan for each in found if each.plan.reason_code == "part"}
        assert told.keys() == {"faiss", "faiss-filtered"}
        count = len(forms.parts.parts)
        which = f"part 2 of {count} did not answer in time; its"
        if len(numbers) == 2:
            which = f"parts 1 and 3 of {count} did not answer in time; their"
        for plan in told.values():
            assert plan.reason.endswith(f"; {which} pictures were compared in PostgreSQL")
            assert plan.build == forms.parts.id
    away.numbers = set()
    assert app.search.search(queries[0]).plan.reason_code != "part"


def test_without_any_part_postgresql_answers(
    app: App, forms: BothForms, sql: psycopg.Connection
) -> None:
    skus = refill(app, sql, Random(2))
    expected = app.search.search(Query(sku=skus[0], k=5))
    part_away(app, forms, *range(len(forms.parts.parts)))
    found = app.search.search(Query(sku=skus[0], k=5))
    assert answered(found) == answered(expected)
    assert (found.plan.path, found.plan.reason_code) == ("exact", "part")
    assert found.plan.reason == f"no part of build {forms.parts.id} answered in time"


def test_the_windows_of_a_photo_are_compared_with_the_pictures_of_a_missing_part(
    app: App, forms: BothForms, sql: psycopg.Connection
) -> None:
    refill(app, sql, Random(2))
    [missing, *_] = forms.parts.parts
    near = np.random.default_rng(1).normal(size=(3, app.encoder().dim)).astype(np.float32)
    with app.engine.connect() as connection:
        ids = missing_parts.windows_of_missing_parts(
            connection, app.catalog.model(), forms.parts, near, [missing], 1000
        )
    for vector, found in zip(near.astype(np.float16), ids, strict=True):
        literal = str(vector.tolist())
        nearest = sql.execute(
            "SELECT picture_id FROM embedding WHERE picture_id BETWEEN %s AND %s"
            " ORDER BY (vec <=> %s::halfvec) + 0, picture_id LIMIT 4",
            [missing.first, missing.last, literal],
        )
        assert found.tolist() == [row[0] for row in nearest]


@pytest.mark.parametrize("first", [0, 3, 8, 13])
@pytest.mark.parametrize("ids", [[3, 8, 9, 15, 16, 40], [5], [10**9, 10**9 + 7, 12]])
def test_a_selection_is_sent_as_what_a_part_has_of_it(ids: list[int], first: int) -> None:
    """In bits or as ids."""
    every = np.array(sorted({*range(64), *ids}), np.int64)
    selector = IdSelector(np.array(ids, np.int64))
    for last in (first, first + 1, 16, 39, 40, 10**9):
        sent = selector.within(first, last)
        wanted = [each for each in sorted(ids) if first <= each <= last]
        assert every[sent.selector().contains(every)].tolist() == wanted
        passing = missing_parts._of_part(sent)
        if passing.bits is not None:
            bits = np.unpackbits(np.frombuffer(passing.bits, np.uint8), bitorder="little")
            assert (np.flatnonzero(bits) + passing.origin).tolist() == wanted
        else:
            assert list(passing.ids) == wanted


def test_a_large_part_is_searched_by_pgvectors_index(
    app: App, forms: BothForms, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    skus = refill(app, sql, Random(2))
    part_away(app, forms, 0)
    asked: list[int] = []
    monkeypatch.setattr(pgvector_index, "measured", lambda _, model: asked.append(model))
    app.search.search(Query(sku=skus[0], k=5))
    assert asked == []
    few: Any = app.search._settings.model_copy(update={"exact_rows": 0})
    monkeypatch.setattr(app.search, "_settings", few)
    assert app.search.search(Query(sku=skus[0], k=5)).plan.reason_code == "part"
    assert asked
