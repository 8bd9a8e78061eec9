"""Searches on a hot standby: exact as of its replay position."""

from __future__ import annotations

import threading
from pathlib import Path

import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.types import Query
from freshness.soak import Builder, Searcher, Tally, Writer, fill
from support import servers
from support.colours import choose_colours, photo
from support.search_checks import best_sku, exact_plan, rounded_vector
from support.servers import paused
from support.shop import add, numbered

pytestmark = pytest.mark.xdist_group("replica")


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
