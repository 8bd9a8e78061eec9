"""What a standby does to a search: it cancels some, it locks, and it is promoted."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from app.bootstrap import App
from app.config import Settings
from app.db.engine import snapshot
from app.errors import DatabaseUnavailable, LookalikeError, NotReady
from app.index.file_store import IndexFiles
from app.models import removal
from app.search import service as search_service
from app.search.page_hits import PageRequest
from app.search.paging import Page
from app.types import Query
from support import servers
from support.colours import choose_colours, photo
from support.search_checks import SearchThreads, best_sku, exact_plan
from support.shop import add, numbered

pytestmark = pytest.mark.xdist_group("replica")


def test_a_search_cancelled_by_replay_is_repeated(
    app: App, replica: App, sql: psycopg.Connection, server_home: Path, standby_home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The primary cleans up rows that the search still sees; after a while the standby ends it,
    and a new snapshot answers."""
    add(app, numbered(60))
    app.indexer.rebuild()
    servers.catch_up(server_home, standby_home)
    servers.alter_system(standby_home, "ALTER SYSTEM SET max_standby_streaming_delay = '200ms'")
    real, turns = IndexFiles.opened, iter([True])

    def held_up(self: IndexFiles, build: object) -> object:
        if next(turns, False):
            app.catalog.delete([f"P{n:04}" for n in range(30)])
            sql.execute("VACUUM embedding, product, product_picture, picture")
            servers.catch_up(server_home, standby_home)
        return real(self, build)  # type: ignore[arg-type]

    monkeypatch.setattr(IndexFiles, "opened", held_up)
    try:
        assert len(replica.search.search(Query(picture=photo(1000))).matches) == 10
    finally:
        servers.alter_system(standby_home, "ALTER SYSTEM RESET max_standby_streaming_delay")
    # A backend reports its statistics some seconds later.
    servers.wait_until(lambda: _cancelled(replica) == 1, "no search was cancelled")
    exact_plan(replica)


def _cancelled(app: App) -> object:
    """The number of transactions in this database that replay has ended."""
    conflicts = """SELECT confl_snapshot FROM pg_stat_database_conflicts
        WHERE datname = current_database()"""
    with snapshot(app.engine) as connection:
        return connection.execute(text(conflicts)).scalar_one()


def test_a_search_whose_model_is_dropped_is_repeated_with_the_new_one(
    app: App, replica: App, server_home: Path, standby_home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Dropping a model waits for searches on the primary only."""
    add(app, numbered(20))
    with pytest.raises(NotReady, match="models are added on the primary"):
        replica.lifecycle.check_new_fit("our-photos")
    other = app.lifecycle.add("other")
    with app.engine.begin() as connection:
        copied = "INSERT INTO embedding SELECT 2, picture_id, vec FROM embedding"
        connection.exec_driver_sql(copied)
    servers.catch_up(server_home, standby_home)
    real, dropped = search_service.page, []

    def page(asked: PageRequest) -> Page:
        if not dropped:
            dropped.append(app.lifecycle.activate("other", forced_reason="to see"))
            removal.detach(app.engine, dropped[0].former)
            servers.catch_up(server_home, standby_home)
        return real(asked)

    monkeypatch.setattr("app.search.service.page", page)
    result = replica.search.search(Query(picture=photo(7), k=3))
    assert (result.plan.model, len(result.matches)) == (other.name, 3)
    servers.catch_up(server_home, standby_home)


def test_a_lock_that_the_standby_replays_ends_searches_with_a_sentence_and_they_go_on(
    app: App, replica_settings: Settings, database_url: str, server_home: Path, standby_home: Path
) -> None:
    add(app, numbered(60))
    app.indexer.rebuild()
    servers.catch_up(server_home, standby_home)
    hasty = replica_settings.model_copy(update={"statement_timeout_s": 0.3})
    with App(hasty, choose=choose_colours) as replica, psycopg.connect(database_url) as other:
        exact_plan(replica)
        other.execute("LOCK TABLE product_picture")
        servers.catch_up(server_home, standby_home)
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable, match="too long"):
                replica.search.search(Query(picture=photo(1)))
        other.rollback()
        servers.wait_until(lambda: _is_exact(replica), "searches do not go on")


def _is_exact(app: App) -> bool:
    try:
        exact_plan(app)
    except DatabaseUnavailable:  # the lock is not given up yet
        return False
    return True


# The last test: afterwards the standby is none any more.


def test_a_standby_that_is_promoted_while_a_page_serves_keeps_using_the_builds(
    app: App, replica: App, server_home: Path, standby_home: Path
) -> None:
    add(app, numbered(60))
    build = app.indexer.rebuild()
    servers.catch_up(server_home, standby_home)
    assert (exact_plan(replica).build, exact_plan(replica).replica_lag_s) == (build.id, 0.0)
    with SearchThreads(replica) as threads:
        threads.goes_on(1, seconds=300)
        servers.promote(standby_home)
        threads.goes_on(3, seconds=300)
    assert threads.wrong == []
    assert all(isinstance(error, LookalikeError) for error in threads.errors)
    add(replica, {"NEW": [1000]})
    plan = exact_plan(replica)
    assert (plan.path, plan.build, plan.delta_rows) == ("faiss", build.id, 1)
    assert plan.replica_lag_s is None
    assert exact_plan(replica).build != replica.indexer.rebuild().id == exact_plan(replica).build
    assert best_sku(replica, 1000) == "NEW"
