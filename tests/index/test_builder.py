"""Indexes are built from one snapshot, measured, and published completely or not at all."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import event

from app.bootstrap import App
from app.config import Settings
from app.errors import BuildRefused, BuildRunning, IndexUnwritable
from app.index.faiss_index import AnnIndex
from app.index.file_store import IndexFiles
from app.index.recall import RecallBenchmark
from support.colours import choose_colours
from support.paths import REPO
from support.shop import add, numbered


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def states(sql: psycopg.Connection) -> list[tuple[Any, ...]]:
    return sql.execute("SELECT state, reason FROM index_build ORDER BY id").fetchall()


# A build


def test_a_build_is_published_with_its_figures(app: App, sql: psycopg.Connection) -> None:
    add(app, numbered(70))
    build = app.indexer.rebuild()
    assert (build.state, build.kind, build.rows) == ("published", "flat", 70)
    assert (build.recall_at_10, build.recall_sample) == (1.0, 70)
    assert build.seconds > 0
    data = app.files.path(build.sha256).read_bytes()
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (build.sha256, build.size)
    row = sql.execute("SELECT snapshot IS NOT NULL, cluster FROM index_build").fetchone()
    system = sql.execute("SELECT system_identifier FROM pg_control_system()").fetchone()
    oid = sql.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()
    assert system is not None and oid is not None
    assert row == (True, f"{system[0]}/{oid[0]}")


def test_the_two_newest_builds_stay_and_older_files_go(
    app: App, settings: Settings, sql: psycopg.Connection
) -> None:
    made = []
    for number in range(4):
        add(app, numbered(5, first=5 * number))
        made.append(app.indexer.rebuild())
    assert [state for state, _ in states(sql)] == ["retired", "retired", "published", "published"]
    assert files(settings.index_folder) == sorted(f"{b.sha256}.faiss" for b in made[-2:])


def test_a_file_is_deleted_only_once_its_build_is_retired_for_all(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search would otherwise open a published build whose file is gone."""
    removed, remove = [], app.files.remove

    def noted(sha256: str) -> None:
        state = sql.execute("SELECT state FROM index_build WHERE sha256 = %s", [sha256]).fetchall()
        removed.extend(state)
        remove(sha256)

    monkeypatch.setattr(app.files, "remove", noted)
    for number in range(3):
        add(app, numbered(5, first=5 * number))
        app.indexer.rebuild()
    assert removed == [("retired",)]


def test_builds_with_the_same_file_keep_their_own_search_parameters(app: App) -> None:
    add(app, numbered(40))
    build = app.indexer.rebuild()
    other = replace(build, parameters={"nlist": 1, "nprobe": {"10": 1}})
    assert app.files.open(build).parameters == build.parameters
    assert app.files.open(other).parameters == other.parameters


def test_a_file_that_a_later_build_shares_is_kept(app: App, settings: Settings) -> None:
    add(app, numbered(5))
    builds = [app.indexer.rebuild() for _ in range(4)]
    assert len({build.sha256 for build in builds}) == 1
    assert files(settings.index_folder) == [f"{builds[0].sha256}.faiss"]


def test_only_one_builder_works_at_a_time(app: App, settings: Settings) -> None:
    add(app, numbered(5))
    reading, go_on = threading.Event(), threading.Event()

    def wait_at_copy(*arguments: Any) -> None:
        if "pg_current_snapshot" in arguments[2]:
            reading.set()
            assert go_on.wait(300)

    event.listen(app.engine, "before_cursor_execute", wait_at_copy)
    first = threading.Thread(target=app.indexer.rebuild)
    first.start()
    assert reading.wait(300)
    with App(settings, choose=choose_colours) as other, pytest.raises(BuildRunning):
        other.indexer.rebuild()
    go_on.set()
    first.join()
    with App(settings, choose=choose_colours) as other:
        assert other.indexer.rebuild().state == "published"


def test_a_build_below_its_recall_goal_is_rejected_and_the_old_one_stays(
    app: App, settings: Settings, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(app, numbered(30))
    good = app.indexer.rebuild()
    before = files(settings.index_folder)
    add(app, numbered(30, first=30))
    monkeypatch.setattr(RecallBenchmark, "recall", lambda *_: 0.5)
    bad = app.indexer.rebuild()
    assert (bad.state, bad.recall_at_10, bad.rows) == ("rejected", 0.5, 60)
    assert states(sql)[1] == ("rejected", "recall@10 is 0.500, below 0.99")
    assert files(settings.index_folder) == before == [f"{good.sha256}.faiss"]


def test_a_folder_that_cannot_be_written_is_an_error_before_the_work(
    app: App, tmp_path: Path, sql: psycopg.Connection
) -> None:
    (tmp_path / "file").write_text("no folder")
    settings = app.settings.model_copy(update={"index_dir": tmp_path / "file" / "index"})
    with (
        App(settings, choose=choose_colours) as other,
        pytest.raises(IndexUnwritable, match="LOOKALIKE_INDEX_DIR"),
    ):
        other.indexer.rebuild()
    assert states(sql) == []


def test_a_probe_file_that_another_builder_deleted_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files_here = IndexFiles(tmp_path)
    unlink = Path.unlink

    def clear_and_unlink(self: Path, missing_ok: bool = False) -> None:
        with monkeypatch.context() as undone:
            undone.setattr(Path, "unlink", unlink)
            files_here.remove_drafts()
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", clear_and_unlink)
    files_here.check_writable()
    assert files(tmp_path) == []


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from app.bootstrap import App
from app.config import Settings
from support.colours import choose_colours
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
settings = Settings(home=Path(sys.argv[1]), database_url=sys.argv[2])
try:
    App(settings, choose=choose_colours).indexer.rebuild()
except Exception as exc:
    print(type(exc).__name__, exc)
"""


def test_a_full_disk_leaves_no_files(app: App, settings: Settings, sql: psycopg.Connection) -> None:
    add(app, numbered(300))
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(settings.home), str(settings.database_url)],
        cwd=REPO / "tests",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("IndexUnwritable"), done.stdout + done.stderr
    assert "Nothing was published" in done.stdout
    assert files(settings.index_folder) == []
    [(state, reason)] = states(sql)
    assert state == "rejected"
    assert "could not be written" in reason
    assert app.indexer.rebuild().state == "published"


def test_leftovers_of_a_killed_builder_are_removed_by_the_next(
    app: App, settings: Settings, sql: psycopg.Connection
) -> None:
    add(app, numbered(5))
    sql.execute("INSERT INTO index_build (model_id, cluster, sha256) VALUES (1, 'x', 'left')")
    settings.index_folder.mkdir(parents=True)
    (settings.index_folder / "half.tmp").write_bytes(b"half")
    (settings.index_folder / "left.faiss").write_bytes(b"whole, and named by no row")
    build = app.indexer.rebuild()
    assert states(sql)[0] == ("rejected", "its builder disappeared")
    assert files(settings.index_folder) == [f"{build.sha256}.faiss"]


def test_the_row_names_the_file_before_it_is_there(
    app: App, settings: Settings, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the file of a builder killed in between could never be deleted."""
    add(app, numbered(5))
    replace = Path.replace
    named: list[Any] = []

    def look(self: Path, target: Path) -> Path:
        named.append((sql.execute("SELECT sha256 FROM index_build").fetchone(), target.stem))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", look)
    build = app.indexer.rebuild()
    assert named == [((build.sha256,), build.sha256)]


def test_a_builder_that_was_given_up_publishes_nothing(
    app: App, settings: Settings, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(app, numbered(5))
    write = IndexFiles.write

    def overtaken(self: IndexFiles, index: AnnIndex, announce: Any) -> tuple[str, int]:
        sql.execute("UPDATE index_build SET state = 'rejected', reason = 'given up'")
        return write(self, index, announce)

    monkeypatch.setattr(IndexFiles, "write", overtaken)
    with pytest.raises(BuildRefused, match="another builder"):
        app.indexer.rebuild()
    assert states(sql) == [("rejected", "given up")]
    assert files(settings.index_folder) == []
