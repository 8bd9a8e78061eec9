"""Execution plans of the search statements: exact ones scan, the others use their index."""

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
from support.fallback import build_pgvector_index
from support.random_catalogue import fill
from support.recall_queries import few_queries

pytestmark = pytest.mark.xdist_group("query_plans")  # the catalogues are filled once
SIZES = (100, 2000, 8000)
PGVECTOR = "embedding_m1_ivf1_idx"
STAMP = "embedding_m1_changed_in_idx"


def scale_row_estimates(sql: psycopg.Connection, times: int) -> None:
    """Scale the planner's row estimate of the embeddings by a factor."""
    sql.execute(
        "UPDATE pg_class SET reltuples = reltuples * %s WHERE relname LIKE 'embedding_m1%%'",
        [times],
    )


def fill_and_index(app: App, rows: int) -> None:
    fill(app, rows)
    build_pgvector_index(app)


FILLED = {size: partial(fill_and_index, rows=size) for size in SIZES}


@pytest.fixture(params=SIZES)
def rows(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def database_url(filled_database: Callable[[Fill], str], rows: int) -> str:
    return filled_database(FILLED[rows])


class Plans:
    """Execution plans, as text, of the statements that a search runs, captured while it runs."""

    def __init__(self, app: App) -> None:
        self.captured: list[str] = []
        self._busy = False
        event.listen(app.search_engine, "before_cursor_execute", self._explain)

    def _explain(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any
    ) -> None:
        if self._busy or "<=>" not in statement:
            return
        self._busy = True
        plan = connection.exec_driver_sql("EXPLAIN " + statement, parameters)
        self.captured.append("\n".join(plan.scalars()))
        self._busy = False


@pytest.fixture
def plans(app: App) -> Iterator[Plans]:
    yield Plans(app)


def ask(app: App, **more: Any) -> SearchResult:
    vector = np.ones(49, dtype=np.float32)
    return app.search.search(Query(vector=vector, model_id=app.catalog.model().id, **more))


def test_the_exact_scan_never_uses_the_approximate_index(
    app: App, sql: psycopg.Connection, rows: int, plans: Plans
) -> None:
    assert ask(app).plan.path == "exact"
    scale_row_estimates(sql, 1000)
    assert ask(app).plan.path == "exact"
    assert len(plans.captured) == 2
    assert not any(PGVECTOR in plan for plan in plans.captured)


def test_a_filtered_scan_never_uses_the_approximate_index(
    app: App, rows: int, plans: Plans
) -> None:
    assert ask(app, filters=Filters({"brand": "b7"})).plan.path == "exact"
    assert plans.captured
    assert not any(PGVECTOR in plan for plan in plans.captured)


def test_the_delta_is_selected_by_its_stamp_and_searched_exactly(
    app: App, sql: psycopg.Connection, rows: int, plans: Plans, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_queries(monkeypatch)
    app.indexer.rebuild()
    sql.execute("UPDATE embedding SET vec = vec WHERE picture_id <= %s", [rows // 50])
    sql.execute("ANALYZE")
    assert ask(app).plan.path == "faiss"
    [plan] = plans.captured
    assert PGVECTOR not in plan
    if rows > SIZES[0]:
        assert STAMP in plan
        assert "Seq Scan on embedding_m1" not in plan


@pytest.mark.parametrize("rows", SIZES[-1:])
def test_the_fallback_uses_the_approximate_index(settings: Settings, rows: int) -> None:
    with App(settings.model_copy(update={"exact_rows": 10}), choose=choose_colours) as small:
        plans = Plans(small)
        assert ask(small).plan.path == "pgvector"
        assert PGVECTOR in plans.captured[0]
