"""Failure drills: searches are right or refuse with a sentence, and go on by themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.db.embedded import server as embedded_server
from app.errors import DatabaseUnavailable, LookalikeError
from app.types import Query
from support import servers
from support.colours import choose_colours, photo
from support.pooler import pooled
from support.search_checks import SearchThreads, best_sku, exact_plan
from support.shop import add, numbered

pytestmark = pytest.mark.xdist_group("drills")

MAX_CONNECTIONS = 12


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """The home of a server with few connections, on which a catalogue with a build is."""
    options = {"max_connections": str(MAX_CONNECTIONS), "superuser_reserved_connections": "0"}
    with servers.own_server(**options) as home:
        with opened(home) as app:
            app.initialise()
            add(app, numbered(60))
            app.indexer.rebuild()
        yield home


@contextmanager
def opened(home: Path, url: str | None = None, **changes: object) -> Iterator[App]:
    """Services on the server of `home`, like those of a process of their own."""
    settings = Settings(
        home=home, database_url=url or embedded_server.url(home), searches_at_once=2,
        sample_queries=False,
    )  # fmt: skip
    with App(settings.model_copy(update=changes), choose=choose_colours) as app:
        yield app


def test_a_pooler_in_transaction_mode_between_page_and_server(home: Path) -> None:
    """It hands each transaction to any of its connections: what a statement prepared on another is
    not there."""
    with opened(home) as direct, pooled(home) as url, opened(home, url) as app:
        assert exact_plan(app).path == "faiss"
        with SearchThreads(app, threads=4) as threads:
            threads.goes_on(5, seconds=300)
            assert best_sku(app, 7) == "P0007"
        assert (threads.wrong, threads.errors) == ([], [])
        add(direct, {"POOLED": [1000]})
        assert best_sku(app, 1000) == "POOLED"
        direct.catalog.delete(["POOLED"])
        assert best_sku(app, 1000) != "POOLED"
        filtered = Query(picture=photo(7), k=3, fold=True, near_match=0.0)
        assert app.search.search(filtered).matches[0].product.sku == "P0007"


def test_nothing_is_prepared_through_a_pooler(home: Path) -> None:
    """Two processes would give two statements one name, and execute each other's."""
    with pooled(home, size=1) as url, opened(home, url) as app:
        for number in range(8):
            for query in (Query(picture=photo(number)), Query(picture=photo(number), fold=True)):
                assert app.search.search(query).matches
        app.close()
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as sql:
            assert sql.execute("SELECT name FROM pg_prepared_statements").fetchall() == []


def test_searches_go_on_while_and_after_all_connections_are_taken(home: Path) -> None:
    """A page keeps those it has; one that has none refuses until there are some again."""
    with opened(home) as serving, opened(home) as later, ExitStack() as stack:
        exact_plan(serving)
        with pytest.raises(psycopg.OperationalError):
            for _ in range(MAX_CONNECTIONS + 1):
                stack.enter_context(psycopg.connect(embedded_server.url(home)))
        assert best_sku(serving, 7) == "P0007"
        for _ in range(3):
            with pytest.raises(DatabaseUnavailable, match=r"too many clients|connection slots"):
                later.search.search(Query(picture=photo(7)))
        stack.close()
        servers.wait_until(lambda: outcome(later) == "right", "searches do not go on")
        assert exact_plan(later).path == "faiss"


def test_a_server_that_was_rolled_back_gives_out_the_id_of_a_build_again(home: Path) -> None:
    """A process that knows the other build of this id does not take the new one for it."""
    data, kept = home / "postgres", home / "kept"
    embedded_server.stop(home)
    subprocess.run(["cp", "-a", data, kept], check=True)
    servers.start(home)
    with opened(home) as app:
        add(app, {f"LOST{n}": [2000 + n] for n in range(9)})
        lost = app.indexer.rebuild()
        assert exact_plan(app).build == lost.id
        assert best_sku(app, 2003) == "LOST3"
        embedded_server.stop(home)
        shutil.rmtree(data)
        kept.rename(data)
        servers.start(home)
        with opened(home) as other:
            add(other, {f"KEPT{n}": [3000 + n] for n in range(20)})
            again = other.indexer.rebuild()
        assert (again.id, again.sha256 == lost.sha256) == (lost.id, False)
        app.fast_engine.dispose()  # as if a pooler kept the connections: no error tells of the past
        assert best_sku(app, 3015) == "KEPT15"
        assert exact_plan(app).build == again.id
        assert not best_sku(app, 2003).startswith("LOST")


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A folder on a file system of its own; only root can make one."""
    with servers.lent_folder() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
            pytest.skip("a small file system can be mounted by root only")
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_under_the_server(tmp_path: Path) -> None:
    with small_disk(160) as folder:
        home = folder / "home"
        servers.copy_cluster(home)
        servers.start(home, max_wal_size="32MB", wal_recycle="off")
        try:
            with opened(home, index_dir=tmp_path) as app:
                app.initialise()
                add(app, numbered(60))
                app.indexer.rebuild()
                assert exact_plan(app).path == "faiss"
                fill_up(folder)
                with pytest.raises(DatabaseUnavailable, match=r"disk space|cannot be reached"):
                    for first in range(100, 100_000, 100):
                        add(app, numbered(100, first=first))
                outcomes = [outcome(app) for _ in range(3)]
                assert set(outcomes) <= {"right", "DatabaseUnavailable"}
                (folder / "balloon").unlink()
                if not embedded_server.running(home):
                    servers.start(home)
                servers.wait_until(lambda: outcome(app) == "right", "searches do not go on")
                add(app, {"AFTER": [1000]})
                assert best_sku(app, 1000) == "AFTER"
                exact_plan(app)
        finally:
            if embedded_server.running(home):
                servers.crash(home)


def fill_up(folder: Path) -> None:
    """Leave no room in a file system."""
    with (folder / "balloon").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            return


def outcome(app: App) -> str:
    """What becomes of a search for the photo of P0007."""
    try:
        return "right" if best_sku(app, 7) == "P0007" else "wrong"
    except LookalikeError as exc:
        assert str(exc).endswith("."), exc
        return type(exc).__name__
