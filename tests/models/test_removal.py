"""Dropping a model while searches of every kind, analysts and an ingest run."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.bootstrap import App
from app.errors import ModelNotMaintained, UnknownModel
from app.models.backfill import BackfillReport, embed
from app.models.lifecycle import NotReady
from app.search import service as search_service
from app.types import Query
from conftest import Fill
from ingest.originals import Originals
from support.colours import photo
from support.model_removal import ROWS, Others, active, fill, left_of_models, load_forty, searches
from support.servers import wait_until
from support.sources import ingest, write_source

DROPS = 5


@pytest.fixture
def database_url(filled_database: Callable[[Fill], str]) -> str:
    return filled_database(load_forty)


def analyst(connection: psycopg.Connection) -> Callable[[], str]:
    def ask() -> str:
        rows = connection.execute("SELECT sku FROM analytics.similar_products('P0001', 3)")
        if len(rows.fetchall()) != 3:
            raise AssertionError("an analyst found nothing")
        return "analyst"

    return ask


def loads(app: App, source: Path, first: int, last: int) -> Callable[[], str]:
    """Ingests a source, then deletes its products `first` to `last`."""

    def load() -> str:
        report = ingest(app, source)
        if report.rejected:
            raise AssertionError(report)
        app.catalog.delete([f"P{n:04}" for n in range(first, last)])
        return "ingest"

    return load


def test_searches_of_every_kind_go_on_while_models_are_dropped(
    filled: App, open_app: Callable[[], App], tmp_path: Path, sql: psycopg.Connection
) -> None:
    others, page = Others(), open_app()
    more = write_source(tmp_path / "more", ROWS + 60)
    with others.at_work(
        searches(page, "photo"), searches(page, "sku"), searches(open_app(), "sku"),
        searches(open_app(), "folded", fold=True, near_match=0.00001), analyst(sql),
        loads(open_app(), more, ROWS, ROWS + 60),
    ):  # fmt: skip
        for _ in range(DROPS):
            fill(filled, tmp_path / "more")
            filled.lifecycle.drop("mirrored")
        wait_until(lambda: others.wrong or len(others.done) >= 5, "not everything was done")
    assert others.wrong == []
    assert left_of_models(sql) == [("colours",), ("embedding_m1",)]


def test_searches_go_on_while_a_model_is_activated_and_the_former_one_dropped(
    filled: App, open_app: Callable[[], App], tmp_path: Path, sql: psycopg.Connection
) -> None:
    others, page = Others(), open_app()
    with others.at_work(
        searches(page, "photo"), searches(page, "sku"), searches(open_app(), "photo"), analyst(sql)
    ):
        for new, former in [("mirrored", "colours"), ("colours", "mirrored")] * 2:
            fill(filled, tmp_path / "in", new)
            filled.indexer.rebuild(new)
            filled.lifecycle.activate(new)
            filled.lifecycle.drop(former)
    assert others.wrong == []
    assert left_of_models(sql) == [("colours",), ("embedding_m5",)]


def test_a_running_search_keeps_its_model(
    filled: App, open_app: Callable[[], App], tmp_path: Path, sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    other = open_app()
    fill(other, tmp_path / "in")
    other.indexer.rebuild("mirrored")
    real, dropping_ = search_service.page, []

    def page(asked: Any) -> Any:
        if not dropping_:
            other.lifecycle.activate("mirrored")
            dropping_.append(threading.Thread(target=other.lifecycle.drop, args=("colours",)))
            dropping_[0].start()
            waits = "query LIKE '%DETACH%' AND wait_event_type = 'Lock'"
            wait_until(lambda: active(sql, waits) or partitions(sql) == 1, "nothing was dropped")
        return real(asked)

    monkeypatch.setattr("app.search.service.page", page)
    result = filled.search.search(Query(picture=photo(7), k=3))
    dropping_[0].join()
    assert (result.plan.model, len(result.matches)) == ("colours", 3)
    assert left_of_models(sql) == [("embedding_m2",), ("mirrored",)]
    assert filled.search.search(Query(picture=photo(7), k=3)).plan.model == "mirrored"


def partitions(sql: psycopg.Connection) -> int:
    found = sql.execute("SELECT FROM pg_inherits WHERE inhparent = 'embedding'::regclass")
    return len(found.fetchall())


def test_an_ambiguous_revision_is_refused(
    filled: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    life = filled.lifecycle
    life.add("mirrored", "1a")
    life.add("mirrored", "2b")
    with pytest.raises(NotReady, match=r"say which to drop: mirrored@2b or mirrored@1a"):
        life.drop("mirrored")
    with pytest.raises(UnknownModel):
        life.drop("mirrored@3")
    assert life.model("mirrored@1").revision == "1a" and life.model("mirrored").revision == "2b"
    life.drop("mirrored@1a")
    assert [each.model.revision for each in life.models()] == ["1", "2b"]
    life.activate("mirrored", forced_reason="to see")
    life.add("mirrored", "4d")
    assert life.drop("mirrored").revision == "4d"  # the other one is active
    with pytest.raises(NotReady, match="mirrored is the active model"):
        life.drop("mirrored")


def test_a_backfill_stops_when_its_model_is_dropped(
    filled: App, open_app: Callable[[], App], tmp_path: Path, sql: psycopg.Connection
) -> None:
    model, other = filled.lifecycle.add("mirrored"), open_app()
    find = Originals([tmp_path / "in"], filled.limits, None).find

    def drop_midway(report: BackfillReport) -> None:
        other.lifecycle.drop("mirrored")

    with pytest.raises(ModelNotMaintained, match="mirrored is not kept up to date any more"):
        embed(filled.engine, model, filled.encoders.for_model(model.id), find, drop_midway)
    with pytest.raises(UnknownModel):
        filled.indexer.rebuild("mirrored")
    assert left_of_models(sql) == [("colours",), ("embedding_m1",)]


def test_a_running_ingest_notices_a_dropped_model(
    filled: App, open_app: Callable[[], App], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, real = open_app(), filled.catalog.models
    other.lifecycle.add("mirrored")

    def models() -> Any:
        found = real()
        if len(found) > 1:
            other.lifecycle.drop("mirrored")
        return found

    monkeypatch.setattr(filled.catalog, "models", models)
    assert ingest(filled, write_source(tmp_path / "more", ROWS + 5)).added == 5


def test_the_encoder_of_a_dropped_model_is_freed(
    filled: App, open_app: Callable[[], App], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, page = filled.lifecycle.add("mirrored"), open_app()
    held = weakref.ref(page.encoders.for_model(model.id))
    filled.lifecycle.drop("mirrored")
    monkeypatch.setattr("app.models.encoder_pool.PRELOAD_S", 0.0)
    page.search.search(Query(picture=photo(1)))
    wait_until(lambda: gc.collect() >= 0 and held() is None, "the encoder is still there")
    page.search.search(Query(picture=photo(2)))
