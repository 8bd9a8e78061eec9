"""Searches stay correct when files or clocks are wrong, and state their path and reason."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.errors import IndexUnwritable
from app.index import faiss_index, faiss_io
from app.index.file_store import IndexFiles
from app.operations import health
from app.operations.integrity import check
from app.types import Build
from support.colours import choose_colours
from support.search_checks import SearchThreads, best_sku, exact_plan
from support.shop import add, numbered

pytestmark = pytest.mark.xdist_group("faults")

UNPRIVILEGED_UID = 65534


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Index files are only in the folder, so that the database cannot replace a bad one."""
    return settings.model_copy(update={"index_in_database": False})


@pytest.fixture
def build(app: App) -> Build:
    """A build of 60 products, and 5 products added since."""
    add(app, numbered(60))
    made = app.indexer.rebuild()
    add(app, numbered(5, first=60))
    assert (exact_plan(app).path, exact_plan(app).build) == ("faiss", made.id)
    return made


def published(sql: psycopg.Connection) -> list[int]:
    rows = sql.execute("SELECT id FROM index_build WHERE state = 'published' ORDER BY id")
    return [row[0] for row in rows]


def index_check(app: App) -> health.HealthCheck:
    """The status check of the build."""
    checks = health.status(app.engine, app.files, app.settings).checks
    return next(each for each in checks if each.name == "build")


# The file while it is in use


def truncate(path: Path) -> None:
    os.truncate(path, 100)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def begin_with_zeros(path: Path) -> None:
    """As after a power failure."""
    with path.open("r+b") as file:
        file.write(bytes(100))


def replace_by_another_models(path: Path) -> None:
    other = np.eye(8, dtype=np.float32)
    with path.open("wb") as file:
        faiss_io.write(faiss_index.build(np.arange(1, 9, dtype=np.int64), other), file)


DAMAGES = [truncate, empty, flip, replace_by_another_models, Path.unlink]


def test_damaging_an_open_index_file_does_not_affect_searches(
    app: App, settings: Settings, build: Build
) -> None:
    """A mapped file would kill the process when it is truncated."""
    path = app.files.path(build.sha256)
    whole = path.read_bytes()
    with SearchThreads(app) as crowd:
        for harm in DAMAGES:
            path.write_bytes(whole)  # in place: the inode is the one that is open
            crowd.goes_on()
            harm(path)
            crowd.goes_on()
    assert (crowd.wrong, crowd.errors, set(crowd.paths)) == ([], [], {"faiss"})


@pytest.mark.parametrize("harm", [empty, replace_by_another_models], ids=lambda harm: harm.__name__)
def test_a_new_process_detects_a_damaged_index_file_and_reports_it(
    app: App, settings: Settings, build: Build, harm: Callable[[Path], None]
) -> None:
    harm(app.files.path(build.sha256))
    with App(settings, choose=choose_colours) as other:
        with SearchThreads(other) as crowd:
            crowd.goes_on()
        plan = exact_plan(other)
        assert (crowd.wrong, crowd.errors, set(crowd.paths)) == ([], [], {"exact"})
        assert plan.reason.startswith(f"build {build.id}: index file {build.sha256}.faiss")
        assert not index_check(other).ok
        again = other.indexer.rebuild()
        assert (exact_plan(other).path, exact_plan(other).build) == ("faiss", again.id)


@pytest.mark.parametrize("harm", [Path.unlink, truncate, append, begin_with_zeros])
def test_status_detects_an_index_file_of_another_size_or_header(
    app: App, settings: Settings, build: Build, harm: Callable[[Path], object]
) -> None:
    with App(settings, choose=choose_colours) as other:
        assert index_check(other).ok
        harm(app.files.path(build.sha256))
        finding = index_check(other)
        assert not finding.ok and build.sha256 in str(finding.advice)


def test_status_does_not_verify_the_content_of_an_index_file(
    app: App, settings: Settings, build: Build
) -> None:
    """Reading a gigabyte takes seconds; a search verifies the file anyway."""
    flip(app.files.path(build.sha256))
    with App(settings, choose=choose_colours) as other:
        assert index_check(other).ok
        report = check(other.engine, other.files, other.limits)
        assert "builds-lost" in {finding.kind for finding in report.findings}
        assert exact_plan(other).path == "exact"
        assert not index_check(other).ok, "this process has seen that it is damaged"
    with App(settings, choose=choose_colours) as other:
        assert index_check(other).ok


def test_a_build_of_the_same_content_repairs_the_file(app: App, settings: Settings) -> None:
    """The bytes are the same, so the new file has the name of the damaged one."""
    add(app, numbered(60))
    first = app.indexer.rebuild()
    truncate(app.files.path(first.sha256))
    with App(settings, choose=choose_colours) as other:
        assert exact_plan(other).path == "exact"
        second = other.indexer.rebuild()
        assert second.sha256 == first.sha256
        assert (exact_plan(other).path, exact_plan(other).build) == ("faiss", second.id)


def test_an_index_of_another_model_under_the_right_file_name_is_not_searched(
    app: App, settings: Settings, build: Build, sql: psycopg.Connection
) -> None:
    """An intact file of another build: its sha256 cannot detect that."""
    other = faiss_index.build(np.arange(1, 9, dtype=np.int64), np.eye(8, dtype=np.float32))
    sha256, size = app.files.write(other)
    sql.execute("UPDATE index_build SET sha256 = %s, size = %s", [sha256, size])
    with App(settings, choose=choose_colours) as later:
        plan = exact_plan(later)
        assert plan.path == "exact"
        assert plan.reason.startswith(f"build {build.id}: ")


def test_the_folder_may_be_deleted_under_a_running_process(
    app: App, settings: Settings, build: Build
) -> None:
    shutil.rmtree(settings.index_folder)
    assert exact_plan(app).path == "faiss"
    with App(settings, choose=choose_colours) as other:
        assert exact_plan(other).path == "exact"
        made = other.indexer.rebuild()
        assert (exact_plan(other).path, exact_plan(other).build) == ("faiss", made.id)


# The folder


@contextmanager
def closed(folder: Path) -> Iterator[None]:
    """No user may write to the folder; root switches its file-system user."""
    before = stat.S_IMODE(folder.stat().st_mode)
    folder.chmod(0o555)
    as_root = os.geteuid() == 0
    libc = ctypes.CDLL(None)
    if as_root:
        libc.setfsuid(UNPRIVILEGED_UID)
    try:
        yield
    finally:
        if as_root:
            libc.setfsuid(0)
        folder.chmod(before)


def fill_pools(app: App) -> None:
    """Fill the pools: the file-system user of `closed` cannot reach the server's socket."""
    for engine in (app.engine, app.search_engine):
        with engine.connect(), engine.connect(), engine.connect(), engine.connect():
            pass


def test_a_folder_that_is_not_writable_is_an_error_and_changes_nothing(
    app: App, settings: Settings, build: Build, sql: psycopg.Connection
) -> None:
    fill_pools(app)
    with closed(settings.index_folder), pytest.raises(IndexUnwritable) as caught:
        app.indexer.rebuild()
    assert "Permission denied" in str(caught.value) and "LOOKALIKE_INDEX_DIR" in str(caught.value)
    assert sql.execute("SELECT count(*) FROM index_build").fetchone() == (1,)
    assert (exact_plan(app).path, exact_plan(app).build) == ("faiss", build.id)


def test_a_folder_that_is_closed_during_a_build_leaves_the_build_before_in_use(
    app: App, settings: Settings, build: Build, sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    write = IndexFiles.write

    def write_closed(self: IndexFiles, *arguments: Any) -> tuple[str, int]:
        with closed(self.folder):
            return write(self, *arguments)

    fill_pools(app)
    monkeypatch.setattr(IndexFiles, "write", write_closed)
    with pytest.raises(IndexUnwritable, match="Permission denied"):
        app.indexer.rebuild()
    assert published(sql) == [build.id]
    [(state, reason)] = sql.execute(
        "SELECT state, reason FROM index_build WHERE id > %s", [build.id]
    ).fetchall()
    assert state == "rejected" and "could not be written" in reason
    assert (exact_plan(app).path, exact_plan(app).build) == ("faiss", build.id)
    monkeypatch.undo()
    assert exact_plan(app).build == build.id != app.indexer.rebuild().id == exact_plan(app).build


def test_a_file_that_may_not_be_read_is_named_and_the_table_answers(
    app: App, settings: Settings, build: Build
) -> None:
    path = app.files.path(build.sha256)
    path.chmod(0)
    with App(settings, choose=choose_colours) as other:
        fill_pools(other)
        with closed(settings.index_folder):
            plan = exact_plan(other)
        assert plan.path == "exact"
        assert "cannot be read: Permission denied" in plan.reason
        path.chmod(0o644)
        assert exact_plan(other).path == "faiss"


# The clock

TIMES = ["1970-01-01", "2999-12-31"]


@pytest.mark.parametrize("newest", TIMES)
def test_the_newest_build_is_the_one_started_last_with_any_clock(
    app: App, settings: Settings, sql: psycopg.Connection, newest: str
) -> None:
    """A clock that was set back, or was ahead during the previous build."""
    add(app, numbered(60))
    first = app.indexer.rebuild()
    add(app, {"NEW": [1000]})
    second = app.indexer.rebuild()
    oldest = next(time for time in TIMES if time != newest)
    for build, time in ((first, oldest), (second, newest)):
        sql.execute(
            "UPDATE index_build SET started_at = %s, finished_at = %s WHERE id = %s",
            [time, time, build.id],
        )
    sql.execute("UPDATE product SET created_at = %s, updated_at = %s", [newest, newest])
    with App(settings, choose=choose_colours) as other:
        plan = exact_plan(other)
        assert (plan.path, plan.build, plan.delta_rows) == ("faiss", second.id, 0)
        status = health.status(other.engine, other.files, settings)
        assert status.healthy, status
        third = other.indexer.rebuild()
        assert published(sql) == [second.id, third.id]
        assert exact_plan(other).build == third.id


@pytest.mark.parametrize("time", TIMES)
def test_a_change_is_found_with_any_clock(
    app: App, build: Build, sql: psycopg.Connection, time: str
) -> None:
    """Rows are distinguished by the transaction that wrote them, not by time."""
    sql.execute("UPDATE index_build SET started_at = %s, finished_at = %s", [time, time])
    add(app, {"NEW": [1000]})
    app.catalog.delete(["P0003"])
    sql.execute("UPDATE product SET created_at = %s, updated_at = %s", [time, time])
    assert best_sku(app, 1000) == "NEW"
    plan = exact_plan(app)
    assert (plan.path, plan.build, plan.delta_rows) == ("faiss", build.id, 6)
