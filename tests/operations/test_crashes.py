"""Searches stay correct when builders and servers crash and when dumps are restored."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.db.embedded import server as embedded_server
from app.db.queries import embeddings, filter_snapshot, index_builds
from app.errors import BuildRunning, DatabaseUnavailable
from app.index import faiss_io
from app.index.faiss_library import faiss
from app.index.file_store import IndexFiles
from app.operations.migrate import migrate
from app.search.filters import parse
from app.types import Query
from ingest import prefetch
from support import servers
from support.colours import choose_colours, photo
from support.forks import Fork, fork
from support.search_checks import SearchThreads, best_sku, exact_plan
from support.shop import add, numbered
from support.sources import WatchedEncoder, ingest, write_source

pytestmark = pytest.mark.xdist_group("crashes")

RECOVERY_S = 300
"""Seconds within which searches must work again after the server has restarted."""


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


def published(sql: psycopg.Connection) -> list[tuple[int, str]]:
    """Ids and files of the published builds, oldest first."""
    return sql.execute(
        "SELECT id, sha256 FROM index_build WHERE state = 'published' ORDER BY id"
    ).fetchall()


def rebuild(app: App) -> int:
    """Build as soon as the server has noticed that the previous builder is gone."""
    deadline = time.monotonic() + RECOVERY_S
    while True:
        try:
            build = app.indexer.rebuild()
        except BuildRunning:
            assert time.monotonic() < deadline, "the lock of a builder that died is still held"
            time.sleep(0.02)
        else:
            assert build.state == "published"
            return build.id


def assert_whole(sql: psycopg.Connection, folder: Path) -> None:
    """Each published build has its file, and each file with a final name is complete."""
    names = {path.stem for path in folder.glob("*.faiss")}
    assert {sha256 for _, sha256 in published(sql)} <= names
    for path in folder.glob("*.faiss"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem


def assert_clean(sql: psycopg.Connection, folder: Path) -> None:
    """The folder holds the files of the published builds and nothing else."""
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted({f"{sha256}.faiss" for _, sha256 in published(sql)})
    stored = sql.execute("SELECT DISTINCT build_id FROM index_chunk ORDER BY 1").fetchall()
    assert [row[0] for row in stored] == [build for build, _ in published(sql)]
    assert sql.execute("SELECT count(*) FROM index_build WHERE state = 'building'").fetchone() == (
        0,
    )


# Killed builders

BEFORE_THE_ROW = [
    "before the content is read",
    "before the file",
    "half the file",
    "before the file has its name",
    "after the file has its name",
    "before the chunks",
    "before the row",
    "before the row is committed",
]
AFTER_THE_ROW = ["after the row", "before old files are deleted", "after old files are deleted"]


Tell = Callable[[str], None]


def build_and_pause(settings: Settings, step: str, tell: Tell) -> None:
    """Build, and pause for ever at a step; runs in a child process."""

    def pause() -> None:
        tell("paused")
        signal.pause()

    def stop(owner: Any, name: str, *, after: bool = False) -> None:
        real = getattr(owner, name)

        def paused(*arguments: Any, **named: Any) -> Any:
            result = real(*arguments, **named) if after else None
            pause()
            return result

        setattr(owner, name, paused)

    write = faiss_io.write

    def write_half(index: Any, file: Any) -> Any:
        _, size = write(index, file)
        file.truncate(size // 2)
        pause()

    steps: dict[str, Callable[[], None]] = {
        "before the content is read": lambda: stop(embeddings, "stream"),
        "before the file": lambda: stop(IndexFiles, "write"),
        "half the file": lambda: setattr(faiss_io, "write", write_half),
        "before the file has its name": lambda: stop(Path, "replace"),
        "after the file has its name": lambda: stop(Path, "replace", after=True),
        "before the chunks": lambda: stop(index_builds, "save_file"),
        "before the row": lambda: stop(index_builds, "finish"),
        "before the row is committed": lambda: stop(index_builds, "finish", after=True),
        "after the row": lambda: stop(index_builds, "retire_older"),
        "before old files are deleted": lambda: stop(IndexFiles, "remove"),
        "after old files are deleted": lambda: stop(IndexFiles, "remove", after=True),
    }
    steps[step]()
    App(settings, choose=choose_colours).indexer.rebuild()
    tell("never stopped")


def test_a_fork_searches_after_threads_have_searched_here() -> None:
    library = faiss()
    index, before = library.IndexFlatIP(64), library.omp_get_max_threads()
    vectors = np.random.default_rng(1).normal(size=(20_000, 64)).astype(np.float32)
    index.add(vectors)
    library.omp_set_num_threads(2)
    try:
        expected = index.search(vectors[:10], 3)[1]
        child = fork(lambda tell: tell(str(index.search(vectors[:10], 3)[1].tolist())))
        found = child.output.read()
        assert (child.wait(), found) == (0, f"{expected.tolist()}\n")
    finally:
        library.omp_set_num_threads(before)


@pytest.fixture
def builder() -> Iterator[Callable[[Settings, str], Fork]]:
    """Starts a builder and returns when it pauses at a step; ends it with the test."""
    started: list[Fork] = []

    def begin(settings: Settings, step: str) -> Fork:
        started.append(fork(lambda tell: build_and_pause(settings, step, tell)))
        assert started[-1].output.readline() == "paused\n"
        return started[-1]

    yield begin
    for process in started:
        process.kill()


@pytest.mark.parametrize("step", BEFORE_THE_ROW + AFTER_THE_ROW)
def test_a_builder_killed_at_any_step_leaves_correct_searches_and_no_files(
    app: App, settings: Settings, sql: psycopg.Connection, step: str,
    builder: Callable[[Settings, str], Fork],
) -> None:  # fmt: skip
    before = []
    for first in (0, 30):  # as many builds as are kept, so that one will be retired
        add(app, numbered(30, first=first))
        before.append(app.indexer.rebuild().id)
    add(app, {"NEW": [1000]})
    app.catalog.delete(["P0003"])
    process = builder(settings, step)
    standing = exact_plan(app)
    process.kill()
    assert process.returncode == -signal.SIGKILL
    assert_whole(sql, settings.index_folder)
    new = [build for build, _ in published(sql) if build not in before]
    assert len(new) == (step in AFTER_THE_ROW)
    with App(settings, choose=choose_colours) as other:
        for plan in (standing, exact_plan(app), exact_plan(other)):
            assert (plan.path, plan.build) == ("faiss", new[0] if new else before[-1])
        app.catalog.delete(["P0005"])  # otherwise the orphan would have the name of the next file
        last = rebuild(other)
        assert_clean(sql, settings.index_folder)
        assert (exact_plan(app).build, exact_plan(other).build) == (last, last)
        assert best_sku(app, 1000) == "NEW"


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
