"""Fixtures of all tests: real photos, one PostgreSQL server a process, one database a test."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import support.environment  # noqa: F401 - before all that starts threads or makes files

# isort: split
import psycopg
import pytest
from hypothesis import settings as hypothesis_settings

from app.bootstrap import App
from app.config import Settings
from app.db.embedded import server as embedded_server
from app.db.queries.index_builds import CLUSTER
from support.colours import choose_colours
from support.paths import REPO
from support.scheduling import GroupScheduling, own_share_first, sort_longest_first

pytest_plugins = ["support.browsing", "support.warm_commands"]

# No test fails because the machine is busy.
hypothesis_settings.register_profile("without_deadline", deadline=None)
hypothesis_settings.load_profile("without_deadline")

KEPT = {"LOOKALIKE_TEST_DATA", "LOOKALIKE_CACHE_DIR"}

Fill = Callable[[App], object]

# A server whose data nobody misses need not wait for the disk. Each CREATE and DROP DATABASE
# passes over all shared buffers.
HASTY = {
    "shared_buffers": "32MB",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_wal_size": "256MB",
}

ABANDONED = deque[str]()
"""Databases of finished tests, dropped a few tests later: DROP DATABASE sleeps for 0.1 s while a
connection that was closed a moment before is still ending."""
KEPT_DATABASES = 4
CONNECTED = "SELECT FROM pg_stat_activity WHERE datname = %s"
DISCONNECT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY(%s)"


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Without garbage collection, because nothing that is imported and collected is garbage."""
    config = session.config
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and [Path(name).absolute() for name in config.args] == [REPO / "tests"]:
        count = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        config.args = own_share_first(REPO / "tests", int(worker.removeprefix("gw")), count)
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    sort_longest_first(items)


def pytest_collection_finish() -> None:
    """Leave modules and collected tests, which live to the end, out of each garbage collection, and
    collect after ten times as many new objects as Python does by itself."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10 * gc.get_threshold()[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    config.option.loadscopereorder = False  # longest first, not the largest group
    return GroupScheduling(config, log)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real photos; without it, tests that need it are skipped, but not in CI."""
    folder = Path(os.environ.get("LOOKALIKE_TEST_DATA") or REPO.parent / "shared" / "data")
    if not folder.is_dir():
        reason = f"no photos in {folder}; set LOOKALIKE_TEST_DATA to the folder that holds them"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests reaches them."""
    for name in list(os.environ):
        if name.startswith("LOOKALIKE_") and name not in KEPT:
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache that all test processes of one run share: a tower is exported once."""
    own = tmp_path_factory.getbasetemp()
    cache = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOKALIKE_CACHE_DIR", str(cache))
        yield cache


@pytest.fixture(scope="session")
def server_home() -> Iterator[Path]:
    """The home of a server that lives as long as this test process."""
    home = Path(tempfile.mkdtemp(prefix="lookalike-test-"))
    embedded_server.start(home, HASTY)
    yield home
    embedded_server.stop(home)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def administrator(server_home: Path) -> Iterator[psycopg.Connection]:
    """A connection that creates and drops the databases of that server."""
    url = embedded_server.url(server_home, "postgres")
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def template(server_home: Path, administrator: psycopg.Connection) -> str:
    """The name of a migrated database with the encoder 'colours' recorded, to be copied."""
    name = "template_catalogue"
    url = _create_database(administrator, server_home, name, None)
    with App(Settings(home=server_home, database_url=url), choose=choose_colours) as app:
        app.initialise()
    return name


@pytest.fixture(scope="session")
def filled_template(
    server_home: Path, administrator: psycopg.Connection, template: str
) -> Callable[[Fill], str]:
    """Gives the name of a database that a function has filled, once in this process."""
    names: dict[Fill, str] = {}

    def make(fill: Fill) -> str:
        if fill not in names:
            name = f"template_{uuid4().hex[:12]}"
            url = _create_database(administrator, server_home, name, template)
            with App(
                Settings(home=server_home / name, database_url=url), choose=choose_colours
            ) as app:
                fill(app)
            names[fill] = name
        return names[fill]

    return make


@pytest.fixture
def filled_database(
    new_database: Callable[[str | None], str], filled_template: Callable[[Fill], str]
) -> Callable[[Fill], str]:
    """Gives the URL of a new database with what a function fills in, copied where it can be."""
    return lambda fill: _keep_builds(new_database(filled_template(fill)))


@pytest.fixture(scope="module")
def shared_filled_database(
    server_home: Path, administrator: psycopg.Connection, filled_template: Callable[[Fill], str]
) -> Iterator[Callable[[Fill], str]]:
    """The same for all tests of a module that only read it."""
    with _databases(administrator, server_home) as make:
        yield lambda fill: _keep_builds(make(filled_template(fill)))


@pytest.fixture
def new_database(
    server_home: Path, administrator: psycopg.Connection
) -> Iterator[Callable[[str | None], str]]:
    """Makes databases, empty or copied from a template; gives their URL, drops them at the end."""
    with _databases(administrator, server_home) as make:
        yield make


@contextmanager
def _databases(
    administrator: psycopg.Connection, home: Path
) -> Iterator[Callable[[str | None], str]]:
    names: list[str] = []

    def make(template: str | None = None) -> str:
        names.append(f"test_{uuid4().hex[:12]}")
        return _create_database(administrator, home, names[-1], template)

    yield make
    administrator.execute(DISCONNECT, [names])
    ABANDONED.extend(names)
    while len(ABANDONED) > KEPT_DATABASES:
        name = ABANDONED.popleft()
        administrator.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


@pytest.fixture
def empty_url(new_database: Callable[[str | None], str]) -> str:
    """The URL of a database without a single table."""
    return new_database(None)


@pytest.fixture
def database_url(new_database: Callable[[str | None], str], template: str) -> str:
    """The URL of a migrated database with the encoder 'colours' recorded."""
    return new_database(template)


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings with a database, a home and an index folder of this test's own."""
    return Settings(home=tmp_path / "home", database_url=database_url)


@pytest.fixture
def app(settings: Settings) -> Iterator[App]:
    """All services over this test's database, with the small encoder."""
    with App(settings, choose=choose_colours) as app:
        yield app


@pytest.fixture
def sql(database_url: str) -> Iterator[psycopg.Connection]:
    """A connection beside the service's own, in autocommit."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def _keep_builds(url: str) -> str:
    """Let a copy use the index builds it was copied with, as the stamps of one server allow."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"UPDATE index_build SET cluster = {CLUSTER}".encode())
    return url


def _create_database(
    administrator: psycopg.Connection, home: Path, name: str, template: str | None
) -> str:
    _await_no_connection(administrator, template)
    # Copying files is cheaper than logging their pages, where a checkpoint costs no sync.
    administrator.execute(
        f"CREATE DATABASE {name} TEMPLATE {template or 'template0'} STRATEGY FILE_COPY".encode()
    )
    return embedded_server.url(home, name)


def _await_no_connection(administrator: psycopg.Connection, database: str | None) -> None:
    """Wait for the end of connections just closed: CREATE DATABASE looks once in 0.1 s."""
    for _ in range(1000):
        if not administrator.execute(CONNECTED, [database]).rowcount:
            return
        time.sleep(0.001)
