"""Searches on a hot standby: exact as of its replay position, and the plan says how far back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from app.bootstrap import App
from app.config import Settings
from app.db.embedded import server as embedded_server
from app.db.engine import snapshot
from app.errors import (
    BuildRefused,
    DatabaseUnavailable,
    DatabaseUnsuitable,
    LookalikeError,
    NotReady,
)
from app.index.file_store import IndexFiles
from app.models import removal
from app.operations import health
from app.operations.migrate import migrate
from app.search import service as search_service
from app.search.page_hits import PageRequest
from app.search.paging import Page
from app.types import Query
from freshness.soak import Builder, Searcher, Tally, Writer, fill
from support import servers
from support.colours import choose_colours, photo
from support.search_checks import SearchThreads, best_sku, exact_plan, rounded_vector
from support.shop import add, numbered

pytestmark = pytest.mark.xdist_group("replica")


@pytest.fixture(scope="module")
def standby_home(server_home: Path, template: str) -> Iterator[Path]:
    """The home of a standby that follows the server of the tests."""
    with servers.standby_of(server_home) as home:
        yield home


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The primary samples no queries, so that it writes only what the test writes."""
    return settings.model_copy(update={"sample_queries": False})


@pytest.fixture
def replica_settings(settings: Settings, server_home: Path, standby_home: Path) -> Settings:
    """The same home and so the same index folder, on another server."""
    name = str(make_url(str(settings.database_url)).database)
    servers.catch_up(server_home, standby_home)
    url = embedded_server.url(standby_home, name)
    return settings.model_copy(update={"database_url": url, "sample_queries": True})


@pytest.fixture
def replica(replica_settings: Settings) -> Iterator[App]:
    """All services on the standby's copy of this test's database."""
    with App(replica_settings, choose=choose_colours) as app:
        yield app


@contextmanager
def paused(primary: Path, standby: Path) -> Iterator[None]:
    """Pauses the standby's replay at the current position; on exit it catches up."""
    servers.catch_up(primary, standby)
    servers.ask(standby, "SELECT pg_wal_replay_pause() IS NULL")
    servers.wait_until(
        lambda: servers.ask(standby, "SELECT pg_get_wal_replay_pause_state() = 'paused'"),
        "the replay does not pause",
    )
    try:
        yield
    finally:
        servers.ask(standby, "SELECT pg_wal_replay_resume() IS NULL")
        servers.catch_up(primary, standby)


def test_a_search_on_a_standby_uses_the_primarys_build_and_finds_the_same(
    app: App, replica: App, server_home: Path, standby_home: Path
) -> None:
    add(app, numbered(60))
    build = app.indexer.rebuild()
    add(app, numbered(5, first=60))
    app.catalog.delete(["P0003"])
    servers.catch_up(server_home, standby_home)
    plan = exact_plan(replica)
    assert (plan.path, plan.build, plan.delta_rows) == ("faiss", build.id, 5)
    here, there = (one.search.search(Query(picture=photo(1), k=20)) for one in (app, replica))
    assert here.matches == there.matches


def test_without_a_build_or_its_file_the_standby_searches_its_table(
    app: App, replica: App, server_home: Path, standby_home: Path
) -> None:
    add(app, numbered(60))
    servers.catch_up(server_home, standby_home)
    assert exact_plan(replica).reason == "no index has been built yet"


def test_a_standby_without_the_primarys_folder_has_the_file_from_the_database(
    app: App, replica_settings: Settings, server_home: Path, standby_home: Path, tmp_path: Path
) -> None:
    add(app, numbered(60))
    build = app.indexer.rebuild()
    servers.catch_up(server_home, standby_home)
    apart = replica_settings.model_copy(update={"home": tmp_path / "elsewhere"})
    with App(apart, choose=choose_colours) as replica:
        plan = exact_plan(replica)
    assert (plan.path, plan.build) == ("faiss", build.id)
    assert apart.index_folder != app.settings.index_folder


def test_searches_on_the_standby_answer_for_its_replay_position(
    app: App, replica: App, server_home: Path, standby_home: Path
) -> None:
    add(app, {**numbered(60), "GONE": [2000], "TURNS": [4000]})
    build = app.indexer.rebuild()
    add(app, {"EARLY": [3000]})
    with paused(server_home, standby_home):
        add(app, {"NEW": [1000], "TURNS": [5000]})
        app.catalog.delete(["GONE"])
        assert (best_sku(app, 1000), best_sku(app, 5000)) == ("NEW", "TURNS")
        assert best_sku(app, 2000) != "GONE" != best_sku(app, 4000) != "TURNS"
        assert (best_sku(replica, 2000), best_sku(replica, 3000), best_sku(replica, 4000)) == (
            "GONE", "EARLY", "TURNS",
        )  # fmt: skip
        assert best_sku(replica, 1000) != "NEW" and best_sku(replica, 5000) != "TURNS"
        plan = exact_plan(replica)
        assert (plan.path, plan.build, plan.delta_rows) == ("faiss", build.id, 1)
    assert (best_sku(replica, 1000), best_sku(replica, 5000)) == ("NEW", "TURNS")
    assert best_sku(replica, 2000) != "GONE" and best_sku(replica, 4000) != "TURNS"
    plan = exact_plan(replica)
    assert (plan.path, plan.build, plan.delta_rows) == ("faiss", build.id, 3)


def test_a_build_is_used_once_its_row_was_replayed(
    app: App, replica: App, server_home: Path, standby_home: Path
) -> None:
    """Before that, the build is newer than the standby's rows and lacks those deleted since."""
    add(app, {**numbered(60), "GONE": [1000]})
    first = app.indexer.rebuild()
    with paused(server_home, standby_home):
        app.catalog.delete(["GONE"])
        second = app.indexer.rebuild()
        assert (exact_plan(replica).build, best_sku(replica, 1000)) == (first.id, "GONE")
    assert exact_plan(replica).build == second.id
    assert best_sku(replica, 1000) != "GONE"


def test_files_retired_before_the_standby_replays_it_are_not_needed(
    app: App, replica: App, replica_settings: Settings, server_home: Path, standby_home: Path
) -> None:
    add(app, {**numbered(60), "GONE": [1000]})
    first = app.indexer.rebuild()
    assert exact_plan(app).build == first.id
    servers.catch_up(server_home, standby_home)
    assert exact_plan(replica).build == first.id
    with paused(server_home, standby_home):
        app.catalog.delete(["GONE"])
        for number in range(3):
            add(app, numbered(1, first=100 + number))
            last = app.indexer.rebuild()
        with App(replica_settings, choose=choose_colours) as later:
            for one in (replica, later):
                plan = exact_plan(one)
                assert plan.path == "faiss" or f"build {first.id}: index file" in plan.reason
                assert best_sku(one, 1000) == "GONE"
    assert (exact_plan(replica).path, exact_plan(replica).build) == ("faiss", last.id)


def test_a_transaction_that_was_open_during_the_build_is_found_on_the_standby(
    app: App, replica: App, database_url: str, server_home: Path, standby_home: Path
) -> None:
    add(app, {**numbered(60), "X": [1000]})
    with psycopg.connect(database_url) as early:
        early.execute(
            "UPDATE embedding SET vec = %s::halfvec WHERE picture_id = (SELECT picture_id"
            " FROM product_picture JOIN product ON id = product_id WHERE sku = 'X')",
            [str(rounded_vector(app, 2000).tolist())],
        )
        build = app.indexer.rebuild()
        servers.catch_up(server_home, standby_home)
        assert best_sku(replica, 1000) == "X"
        early.commit()
    servers.catch_up(server_home, standby_home)
    plan = exact_plan(replica)
    assert best_sku(replica, 1000) != "X" == best_sku(replica, 2000)
    assert (plan.path, plan.build, plan.delta_rows) == ("faiss", build.id, 1)


def test_searches_on_the_standby_are_exact_under_concurrent_writes_and_builds(
    app: App, replica: App, database_url: str, server_home: Path, standby_home: Path
) -> None:
    fill(database_url, 0)
    app.indexer.rebuild()
    servers.catch_up(server_home, standby_home)
    stop, tally = threading.Event(), Tally()
    behind = [Writer(database_url, seed, stop) for seed in range(2)]
    builder, searcher = Builder(app, 0, stop), Searcher(replica, 0, 60, tally)
    for thread in (*behind, builder, searcher):
        thread.start()
    searcher.join()
    stop.set()
    for thread in (*behind, builder):
        thread.join(300)
    assert [thread.failure for thread in (*behind, builder) if thread.failure] == []
    assert tally.wrong == []
    assert tally.searches >= 60 and tally.paths["faiss"] > 0
    servers.catch_up(server_home, standby_home)
    exact_plan(replica)


# How far behind


def test_the_plan_states_the_lag_of_the_standby(
    app: App, replica: App, server_home: Path, standby_home: Path
) -> None:
    add(app, numbered(20))
    servers.catch_up(server_home, standby_home)
    assert exact_plan(app).replica_lag_s is None
    servers.wait_until(lambda: exact_plan(replica).replica_lag_s == 0.0, "the standby is not level")
    with paused(server_home, standby_home):
        assert exact_plan(replica).replica_lag_s == 0.0
        add(app, numbered(5, first=20))
        servers.wait_until_received(server_home, standby_home)
        first = exact_plan(replica).replica_lag_s
        servers.ask(server_home, "SELECT pg_sleep(0.3) IS NULL")
        second = exact_plan(replica).replica_lag_s
        assert first is not None and second is not None
        assert 0.0 < first < first + 0.3 <= second < 60
    servers.wait_until(lambda: exact_plan(replica).replica_lag_s == 0.0, "the standby is not level")


def test_a_restarted_standby_without_new_data_has_no_lag(
    app: App, replica: App, server_home: Path, standby_home: Path
) -> None:
    """It requests the last WAL file from its beginning, which it has replayed already."""
    add(app, numbered(20))
    servers.catch_up(server_home, standby_home)
    servers.crash(standby_home)
    servers.start(standby_home)
    streams = "SELECT pg_last_wal_receive_lsn() IS NOT NULL"
    servers.wait_until(lambda: servers.ask(standby_home, streams), "the standby does not follow")
    servers.wait_until(
        lambda: exact_plan(replica).replica_lag_s == 0.0, "the standby is not level", 5
    )


# What a standby does not do


def test_a_build_on_a_standby_is_refused_with_a_reason(
    app: App, replica: App, server_home: Path, standby_home: Path
) -> None:
    add(app, numbered(60))
    build = app.indexer.rebuild()
    servers.catch_up(server_home, standby_home)
    with pytest.raises((BuildRefused, DatabaseUnsuitable), match="replica"):
        replica.indexer.rebuild()
    assert (exact_plan(app).build, exact_plan(replica).build) == (build.id, build.id)
    assert app.indexer.rebuild().id == build.id + 1


def test_a_build_refused_on_a_standby_does_not_touch_the_one_that_runs_on_the_primary(
    app: App, replica: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have separate locks, but share the folder."""
    add(app, numbered(60))
    replace = Path.replace

    def meanwhile(self: Path, target: Path) -> Path:
        with pytest.raises((BuildRefused, DatabaseUnsuitable), match="replica"):
            replica.indexer.rebuild()
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", meanwhile)
    assert app.indexer.rebuild().state == "published"


def test_a_standby_refuses_products_and_migrations_with_a_reason(
    app: App, replica: App, server_home: Path, standby_home: Path
) -> None:
    add(app, numbered(5))
    servers.catch_up(server_home, standby_home)
    with pytest.raises(DatabaseUnsuitable, match="replica"):
        add(replica, {"NEW": [1000]})
    with pytest.raises(DatabaseUnsuitable, match="replica"):
        replica.catalog.delete(["P0001"])
    with pytest.raises(DatabaseUnsuitable, match="replica"):
        migrate(replica.engine)


def test_status_works_on_the_standby(
    app: App, replica: App, server_home: Path, standby_home: Path
) -> None:
    add(app, numbered(60))
    build = app.indexer.rebuild()
    add(app, numbered(5, first=60))
    servers.catch_up(server_home, standby_home)
    status = health.status(replica.engine, replica.files, replica.settings)
    assert status.healthy, status
    values = {check.name: check.value for check in status.checks}
    assert (values["products"], values["delta_rows"]) == (65, 5)
    assert values["build"].startswith(f"{build.id}: flat, 60 rows")


def ask(app: App, question: str) -> object:
    with snapshot(app.engine) as connection:
        return connection.execute(text(question)).scalar_one()


def test_sessions_on_the_standby_have_their_own_settings(
    app: App, replica_settings: Settings
) -> None:
    own = replica_settings.model_copy(update={"statement_timeout_s": 7.0})
    with App(own, choose=choose_colours) as replica:
        assert [ask(one, "SELECT pg_is_in_recovery()") for one in (app, replica)] == [False, True]
        assert ask(app, "SHOW statement_timeout") == "1min"
        assert ask(replica, "SHOW statement_timeout") == "7s"


def test_read_only_and_plain_connections_alternate_on_a_standby(replica: App) -> None:
    """A read-only connection of the pool is not reused for writing."""
    for _ in range(3):
        ask(replica, "SELECT 1")
        assert replica.catalog.model().name == "colours"


# What a standby does to a search


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
    conflicts = """SELECT confl_snapshot FROM pg_stat_database_conflicts
        WHERE datname = current_database()"""
    # A backend reports its statistics some seconds later.
    servers.wait_until(lambda: ask(replica, conflicts) == 1, "no search was cancelled")
    exact_plan(replica)


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
