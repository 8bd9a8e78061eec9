"""How PostgreSQL runs the statements of a search: exact ones scan, the others use their index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import psycopg
import pytest
from sqlalchemy import event

from app.bootstrap import App
from app.config import Settings
from app.types import Filters, Query, SearchResult
from conftest import Fill
from support.colours import choose_colours
from support.filled import fill

pytestmark = pytest.mark.xdist_group("query_plans")  # the catalogues are filled once
SIZES = (100, 2000, 8000)
HNSW = "embedding_m1_vec_idx"
STAMP = "embedding_m1_changed_in_idx"


def pretend(sql: psycopg.Connection, times: int) -> None:
    """Let the planner believe that the embeddings are so many times as many."""
    sql.execute(
        "UPDATE pg_class SET reltuples = reltuples * %s WHERE relname LIKE 'embedding_m1%%'",
        [times],
    )


FILLED = {size: partial(fill, rows=size) for size in SIZES}


@pytest.fixture(params=SIZES)
def rows(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def database_url(filled_database: Callable[[Fill], str], rows: int) -> str:
    return filled_database(FILLED[rows])


class Plans:
    """The plans of the statements a search runs, as text, taken while it runs them."""

    def __init__(self, app: App) -> None:
        self.found: list[str] = []
        self._busy = False
        event.listen(app.search_engine, "before_cursor_execute", self._explain)

    def _explain(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any
    ) -> None:
        if self._busy or "<=>" not in statement:
            return
        self._busy = True
        plan = connection.exec_driver_sql("EXPLAIN " + statement, parameters)
        self.found.append("\n".join(plan.scalars()))
        self._busy = False


@pytest.fixture
def plans(app: App) -> Iterator[Plans]:
    yield Plans(app)


def ask(app: App, **more: Any) -> SearchResult:
    vector = np.ones(49, dtype=np.float32)
    return app.search.search(Query(vector=vector, model_id=app.catalog.model().id, **more))


def test_the_exact_scan_is_never_answered_from_the_approximate_index(
    app: App, sql: psycopg.Connection, rows: int, plans: Plans
) -> None:
    assert ask(app).plan.path == "exact"
    pretend(sql, 1000)
    assert ask(app).plan.path == "exact"
    assert len(plans.found) == 2
    assert not any(HNSW in plan for plan in plans.found)


def test_a_filtered_scan_is_never_answered_from_the_approximate_index(
    app: App, rows: int, plans: Plans
) -> None:
    assert ask(app, filters=Filters({"brand": "b7"})).plan.path == "exact"
    assert plans.found
    assert not any(HNSW in plan for plan in plans.found)


def test_the_delta_is_found_by_its_stamp_and_searched_exactly(
    app: App, sql: psycopg.Connection, rows: int, plans: Plans
) -> None:
    app.indexer.rebuild()
    sql.execute("UPDATE embedding SET vec = vec WHERE picture_id <= %s", [rows // 50])
    sql.execute("ANALYZE")
    assert ask(app).plan.path == "faiss"
    [plan] = plans.found
    assert HNSW not in plan
    if rows > SIZES[0]:
        assert STAMP in plan
        assert "Seq Scan on embedding_m1" not in plan


@pytest.mark.parametrize("rows", SIZES[-1:])
def test_the_fallback_uses_the_approximate_index(settings: Settings, rows: int) -> None:
    with App(settings.model_copy(update={"exact_rows": 10}), choose=choose_colours) as small:
        plans = Plans(small)
        assert ask(small).plan.path == "pgvector-hnsw"
        assert HNSW in plans.found[0]
