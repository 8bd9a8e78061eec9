"""What other processes write for a run, after it has ended or when nothing is kept of it."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from app.bootstrap import App
from app.catalog.batch_write import Batch, RunEnded
from app.catalog.entries import ProductEntry
from app.catalog.history import DEFAULT_LIMITS, HistoryLimits
from app.catalog.ingest_run import IngestRun, ingest_run
from app.catalog.service import CatalogService
from app.catalog.undo import undo
from app.errors import BadInput
from app.types import Product

Write = Callable[[IngestRun, str], object]


@pytest.fixture
def write(app: App) -> Write:
    """Writes a product for a run, as another process does."""
    model = app.catalog.model()

    def write(run: IngestRun, sku: str) -> object:
        catalog = CatalogService(app.engine, during=run.id)
        return catalog.write(Batch([ProductEntry(Product(sku))]), model, run.id)

    return write


def skus(sql: psycopg.Connection) -> list[str]:
    return [sku for (sku,) in sql.execute("SELECT sku FROM product ORDER BY sku")]


def test_rows_of_a_run_that_has_ended_are_not_written(
    app: App, write: Write, sql: psycopg.Connection
) -> None:
    with ingest_run(app.engine, "rows", app.catalog.model()) as run:
        write(run, "EARLY")
    with pytest.raises(RunEnded, match="start it again"):
        write(run, "LATE")
    assert skus(sql) == ["EARLY"]


def test_rows_of_a_run_are_not_written_while_it_is_being_undone(
    app: App, write: Write, sql: psycopg.Connection
) -> None:
    with ingest_run(app.engine, "rows", app.catalog.model()) as run:
        write(run, "EARLY")
    assert run.id is not None
    refused = []

    def write_late(_: object) -> None:
        with pytest.raises(RunEnded):
            write(run, "EARLY")
        refused.append(True)

    undo(app.engine, run.id, DEFAULT_LIMITS, write_late)
    assert refused and skus(sql) == []


def test_a_run_that_was_forgotten_is_not_undone_by_what_was_written_for_it_since(
    app: App, write: Write, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.catalog.history.MB", 50)
    limits = HistoryLimits(megabytes=1)
    with ingest_run(app.engine, "rows", app.catalog.model(), limits) as run:
        write(run, "A")
        assert run.history_id() is None and not run.is_kept
        write(run, "B")  # begun before
    assert app.catalog.undoable_runs(10) == []
    with pytest.raises(BadInput, match="cannot be undone"):
        app.catalog.undo(run.id)
    assert skus(sql) == ["A", "B"]
    with ingest_run(app.engine, "more rows", app.catalog.model(), limits):
        pass
    assert sql.execute("SELECT count(*) FROM product_history").fetchone() == (0,)
