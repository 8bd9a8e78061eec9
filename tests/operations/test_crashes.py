"""Searches stay correct when servers crash and when dumps are restored."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.db.embedded import server as embedded_server
from app.db.queries import embeddings, filter_snapshot, index_builds
from app.errors import DatabaseUnavailable
from app.index.file_store import IndexFiles
from app.operations.migrate import migrate
from app.search.filters import parse
from app.types import Query
from ingest import prefetch
from support import servers
from support.colours import choose_colours, photo
from support.published_builds import RECOVERY_S, assert_clean, assert_whole, published, rebuild
from support.search_checks import SearchThreads, best_sku, exact_plan
from support.shop import add, numbered
from support.sources import WatchedEncoder, ingest, write_source

pytestmark = pytest.mark.xdist_group("crashes")


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """The home of a server that the tests of this file may crash."""
    with servers.own_server() as home:
        url = embedded_server.url(home)
        with App(Settings(home=home, database_url=url), choose=choose_colours) as app:
            app.initialise()
        with administration(home) as connection:
            connection.execute(f"ALTER DATABASE {embedded_server.DATABASE} RENAME TO catalogue")
        yield home


def administration(home: Path) -> psycopg.Connection:
    return psycopg.connect(embedded_server.url(home, "postgres"), autocommit=True)


@pytest.fixture
def database_url(home: Path) -> str:
    """An empty catalogue on that server."""
    name = embedded_server.DATABASE
    url = servers.start(home)
    with administration(home) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name} TEMPLATE catalogue")
    return url


# Server crashes


def test_searches_go_on_within_seconds_of_a_restart_under_load(
    app: App, settings: Settings, home: Path
) -> None:
    add(app, numbered(100))
    build = app.indexer.rebuild()
    add(app, numbered(10, first=100))
    with SearchThreads(app) as crowd:
        for stop in (embedded_server.stop, servers.crash):
            crowd.goes_on()
            stop(home)
            time.sleep(0.3)
            servers.start(home)
            crowd.goes_on(seconds=RECOVERY_S)
    assert crowd.wrong == []
    assert crowd.errors
    assert [exc for exc in crowd.errors if type(exc) is not DatabaseUnavailable] == []
    assert all("try again" in str(exc) for exc in crowd.errors)
    assert set(crowd.paths) == {"faiss"}
    add(app, {"NEW": [1000]})
    assert best_sku(app, 1000) == "NEW"
    assert exact_plan(app).build == build.id


def crashing(home: Path, real: Callable[..., Any], *, after: bool = False) -> Callable[..., Any]:
    """The function on a server that crashes before or after the call."""

    def crashed(*arguments: Any, **named: Any) -> Any:
        if not after:
            servers.crash(home)
        result = real(*arguments, **named)
        if after:
            servers.crash(home)
        return result

    return crashed


@pytest.mark.parametrize(
    ("owner", "name", "after"),
    [
        (embeddings, "stream", False),
        (IndexFiles, "write", False),
        (IndexFiles, "write", True),
        (index_builds, "finish", True),
        (index_builds, "retire_older", False),
    ],
    ids=["content", "before the file", "after the file", "uncommitted row", "after the row"],
)
def test_a_server_crash_during_a_build_is_an_error_and_the_next_build_succeeds(
    app: App, settings: Settings, sql: psycopg.Connection, home: Path,
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, after: bool,
) -> None:  # fmt: skip
    add(app, numbered(40))
    first = app.indexer.rebuild()
    app.catalog.delete(["P0003"])
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, crashing(home, getattr(owner, name), after=after))
        with pytest.raises(DatabaseUnavailable):
            app.indexer.rebuild()
    with pytest.raises(DatabaseUnavailable):
        exact_plan(app)
    servers.start(home)
    with psycopg.connect(str(settings.database_url), autocommit=True) as again:
        assert_whole(again, settings.index_folder)
        new = [build for build, _ in published(again) if build != first.id]
        assert len(new) == (owner is index_builds and name == "retire_older")
        assert (exact_plan(app).path, exact_plan(app).build) == (
            "faiss",
            new[0] if new else first.id,
        )
        app.catalog.delete(["P0005"])
        last = rebuild(app)
        assert exact_plan(app).build == last
        assert_clean(again, settings.index_folder)


def test_a_server_crash_during_an_ingest_loses_no_searchable_product(
    app: App, settings: Settings, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefetch, "CHUNK_ROWS", 4)
    add(app, numbered(40, first=5000))
    build = app.indexer.rebuild()
    source = write_source(tmp_path, 40)

    crashes = iter([servers.crash])  # the encoder is called again before the run notices

    def crash_later(encoded: int) -> None:
        if encoded >= 16 and (crash := next(crashes, None)):
            crash(home)

    with pytest.raises(DatabaseUnavailable):
        ingest(app, source, encoder=WatchedEncoder(crash_later))
    servers.start(home)
    plan = exact_plan(app)
    assert (plan.path, plan.build) == ("faiss", build.id)
    assert plan.delta_rows is not None and 0 < plan.delta_rows < 40
    ingest(app, source)
    assert exact_plan(app).delta_rows == 40
    assert exact_plan(app, k=80).shortfall is None


# Restored dumps


def stamps(home: Path) -> tuple[int, int]:
    """The greatest stamp of a row, and the id of the next transaction."""
    newest = servers.ask(home, "SELECT max(changed_in)::text FROM embedding")
    following = servers.ask(home, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
    return int(newest), int(following)


def test_a_dump_restored_into_a_younger_server_is_searched_exactly_and_rebuilt(
    app: App, settings: Settings, home: Path, tmp_path: Path
) -> None:
    embedded_server.stop(home)
    servers.skip_transactions(home, 3)
    servers.start(home)
    add(app, numbered(60))
    old = [app.indexer.rebuild().id, app.indexer.rebuild().id][-1]
    add(app, {"LATE": [1000]})
    with servers.lent_folder() as folder, servers.own_server() as fresh:
        servers.dump(home, folder / "dump")
        servers.restore(fresh, folder / "dump")
        newest, following = stamps(fresh)
        assert newest > 3 << 32 > following
        copy = settings.model_copy(update={"database_url": embedded_server.url(fresh)})
        with App(copy, choose=choose_colours) as restored:
            before = exact_plan(restored)
            assert (before.path, before.build) == ("exact", None)

            migrate(restored.engine)
            newest, following = stamps(fresh)
            assert newest < following < 3 << 32
            after = exact_plan(restored)
            assert (after.path, after.build) == ("exact", None)

            # The files of the other cluster are in the same folder and cannot be used here.
            new = restored.indexer.rebuild().id
            assert new > old
            plan = exact_plan(restored)
            assert (plan.path, plan.build, plan.delta_rows) == ("faiss", new, 0)
            add(restored, {"NEW": [2000]})
            restored.catalog.delete(["P0003"])
            plan = exact_plan(restored)
            assert (plan.path, plan.build, plan.delta_rows) == ("faiss", new, 1)
            assert (best_sku(restored, 1000), best_sku(restored, 2000)) == ("LATE", "NEW")
        assert exact_plan(app).build == old


def test_a_restored_dump_is_searched_correctly_before_it_is_migrated(
    app: App, settings: Settings, home: Path, tmp_path: Path
) -> None:
    """Rows stamped in the future stay in the delta of each build until they are restamped."""
    with psycopg.connect(str(settings.database_url), autocommit=True) as connection:
        add(app, numbered(40))
        # As in a dump: the rows are inserted before the trigger exists.
        connection.execute("ALTER TABLE embedding DISABLE TRIGGER embedding_stamp")
        connection.execute("UPDATE embedding SET changed_in = (2::bigint << 40)::text::xid8")
        connection.execute("ALTER TABLE embedding ENABLE ALWAYS TRIGGER embedding_stamp")
    build = app.indexer.rebuild().id
    app.catalog.delete(["P0003"])
    plan = exact_plan(app)
    assert (plan.path, plan.build, plan.delta_rows) == ("faiss", build, 39)
    migrate(app.engine)
    assert exact_plan(app).delta_rows == 39
    build = app.indexer.rebuild().id
    plan = exact_plan(app)
    assert (plan.build, plan.delta_rows) == (build, 0)


def is_lost(connection: psycopg.Connection) -> bool:
    """Whether the server has ended this connection, as it does with all after a crash."""
    try:
        connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


def test_a_cached_filter_list_is_not_used_after_a_crash(app: App, sql: psycopg.Connection) -> None:
    """The server recovers and assigns the ids of lost transactions again."""
    stamps = f"SELECT {filter_snapshot.STAMP_VERSIONS}"
    add(app, numbered(30), colour="red")
    app.indexer.rebuild()
    query = Query(picture=photo(1000), k=30, filters=parse(["colour=red"]))
    before = sql.execute(stamps).fetchone()
    started = sql.execute("SELECT pg_postmaster_start_time()").fetchone()
    sql.execute("SET synchronous_commit = off")
    sql.execute("UPDATE product SET colour = 'blue' WHERE sku < 'P0005'")
    for _ in range(3):
        app.search.search(query)
    victim = sql.execute("SELECT pg_backend_pid()").fetchone()
    assert victim is not None
    witness = psycopg.connect(sql.info.dsn, autocommit=True)
    os.kill(int(victim[0]), signal.SIGKILL)
    servers.wait_until(lambda: is_lost(witness), "the server does not notice the crash")
    again = None
    deadline = time.monotonic() + 300
    while again is None:
        try:
            again = psycopg.connect(sql.info.dsn, autocommit=True)
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    with again:
        assert again.execute("SELECT pg_postmaster_start_time()").fetchone() == started
        assert again.execute(stamps).fetchone() != before
        red = again.execute("SELECT count(*) FROM product WHERE colour = 'red'").fetchone()
        for _ in range(40):
            again.execute("SELECT pg_current_xact_id()")
        for _ in range(3):
            assert red == (len(app.search.search(query).matches),)
