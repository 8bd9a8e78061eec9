"""An ingest that is interrupted at any point and repeated ends in the same state as an
uninterrupted one."""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.bootstrap import App
from app.catalog import fallback_index
from app.config import Settings
from app.db.embedded import binaries
from app.db.embedded import server as embedded_server
from app.errors import DatabaseUnavailable
from ingest import prefetch, prepare
from ingest.local_files import LocalPictures
from ingest.pipeline import IngestReport
from support.colours import choose_colours, photo
from support.forks import fork
from support.sources import WatchedEncoder, contents, ingest, write_csv, write_photos, write_source

# A server crash loses no committed data unless commits are asynchronous.
UNSYNCED = {"fsync": "off"}

Contents = dict[str, list[tuple[Any, ...]]]


@pytest.fixture
def source(app: App, tmp_path: Path) -> Path:
    """A source that adds, changes, deletes and shares pictures; an older state of it is loaded."""
    folder = tmp_path / "in"
    write_photos(folder, range(60))
    # Eight products will be changed, two deleted.
    old = [{"sku": f"P{n}", "title": "old", "images": f"{n}.png|{n + 30}.png"} for n in range(10)]
    ingest(app, write_csv(folder / "old.csv", old))
    new = [
        {"sku": f"P{n}", "title": "new", "images": f"{(n * 7) % 60}.png|{(n * 11) % 60}.png"}
        for n in range(2, 60)
    ]
    new[20]["images"] = "none.png"
    return write_csv(folder / "new.csv", new)


@pytest.fixture
def uninterrupted(
    source: Path, settings: Settings, new_database: Callable[[str | None], str], template: str
) -> Contents:
    """The contents after an uninterrupted run."""
    url = new_database(template)
    other_settings = settings.model_copy(update={"database_url": url})
    with App(other_settings, choose=choose_colours) as app, psycopg.connect(url) as connection:
        ingest(app, source.with_name("old.csv"))
        ingest(app, source, prune=True)
        return contents(connection)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "CHUNK_ROWS", 4)


class Broken(Exception):
    """The error that a test injects."""


def raising(error: BaseException, after: int) -> WatchedEncoder:
    """An encoder that raises the error after it has encoded `after` pictures."""

    def before(encoded: int) -> None:
        if encoded >= after:
            raise error

    return WatchedEncoder(before)


@pytest.mark.parametrize("after", [0, 8, 30])
@pytest.mark.parametrize("error", [Broken(), KeyboardInterrupt()], ids=["error", "ctrl-c"])
def test_a_run_that_failed_in_the_encoder_is_completed_by_the_next(
    app: App, sql: psycopg.Connection, source: Path, uninterrupted: Contents, after: int,
    error: BaseException,
) -> None:  # fmt: skip
    with pytest.raises(type(error)):
        ingest(app, source, prune=True, encoder=raising(error, after))
    ingest(app, source, prune=True)
    assert contents(sql) == uninterrupted


def test_rows_written_before_an_error_are_kept_and_not_embedded_again(
    app: App, sql: psycopg.Connection, source: Path
) -> None:
    first, second = raising(Broken(), 20), WatchedEncoder()
    with pytest.raises(Broken):
        ingest(app, source, encoder=first)
    pictures = len(contents(sql)["picture"])
    report = ingest(app, source, encoder=second)
    assert report.unchanged > 0 and first.encoded >= 20
    assert second.encoded == len(contents(sql)["picture"]) - pictures < 60 - 20


def test_a_run_interrupted_between_two_chunks_is_completed_by_the_next(
    app: App, sql: psycopg.Connection, source: Path, uninterrupted: Contents
) -> None:
    def interrupt(report: IngestReport, _rows: int) -> None:
        if report.read >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(app, source, prune=True, progress=interrupt)
    ingest(app, source, prune=True)
    assert contents(sql) == uninterrupted


def test_an_interrupted_run_is_recorded_as_failed(
    app: App, sql: psycopg.Connection, source: Path
) -> None:
    with pytest.raises(Broken):
        ingest(app, source, encoder=raising(Broken("the reason"), 8))
    newest = sql.execute("SELECT state, report FROM ingest_run ORDER BY id DESC").fetchone()
    assert newest == ("failed", {"reason": "the reason"})


def test_a_finished_run_stays_finished_when_the_index_rebuild_is_interrupted(
    app: App, sql: psycopg.Connection, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fallback_index, "maintain", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ingest(app, source)
    newest = sql.execute("SELECT state, report->'deleted' FROM ingest_run ORDER BY id DESC")
    assert newest.fetchone() == ("finished", 0)


def test_an_interrupted_run_leaves_no_thread_and_no_transaction(
    app: App, sql: psycopg.Connection, source: Path
) -> None:
    before = threading.active_count()
    with pytest.raises(Broken):
        ingest(app, source, encoder=raising(Broken(), 8))
    assert threading.active_count() == before
    open_ones = sql.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND state LIKE 'idle in transaction%'"
    ).fetchone()
    assert open_ones == (0,)


def load_in_chunks(settings: Settings, source: Path, tell: Callable[[str], None]) -> None:
    """Ingest in chunks of four rows; runs in a child process."""
    prefetch.CHUNK_ROWS = 4
    with App(settings, choose=choose_colours) as app:
        progress = lambda report, rows: tell(str(report.read))  # noqa: E731
        ingest(app, source, prune=True, progress=progress)


def test_the_run_of_a_killed_process_is_completed_by_the_next(
    sql: psycopg.Connection, settings: Settings, source: Path, uninterrupted: Contents
) -> None:
    moments, killed = random.Random(20), 0
    for attempt in range(5):  # each somewhat later; a late attempt may find the run ended
        process = fork(lambda tell: load_in_chunks(settings, source, tell))
        process.output.readline()  # the first chunk is written
        time.sleep(moments.uniform(0, 0.02 * attempt))
        process.kill()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= 2
    process = fork(lambda tell: load_in_chunks(settings, source, tell))
    process.output.read()
    assert process.wait() == 0 and contents(sql) == uninterrupted


@pytest.fixture
def own_server() -> Iterator[Path]:
    """The home of a server that this test may stop."""
    home = Path(tempfile.mkdtemp(prefix="lookalike-fault-"))
    embedded_server.start(home, UNSYNCED)
    yield home
    embedded_server.stop(home)
    shutil.rmtree(home, ignore_errors=True)


def crash(home: Path) -> None:
    """Stop the server without a checkpoint, as after a power failure."""
    binaries.run("pg_ctl", "-w", "-m", "immediate", "-D", str(home / "postgres"), "stop")


def crash_after(home: Path, after: int, encoded: int) -> None:
    # The encoder is called again before the run notices the crash.
    if encoded >= after and (home / "postgres" / "postmaster.pid").exists():
        crash(home)


def test_a_server_crash_is_an_error_and_the_next_run_completes(
    own_server: Path, tmp_path: Path
) -> None:
    source = write_source(tmp_path, 40, pictures=2)
    settings = Settings(home=own_server)
    with App(settings, choose=choose_colours) as app:
        app.initialise()
        for after in (0, 40):
            crashing = WatchedEncoder(partial(crash_after, own_server, after))
            with pytest.raises(DatabaseUnavailable, match="cannot be reached"):
                ingest(app, source, encoder=crashing)
            embedded_server.start(own_server, UNSYNCED)
        # The same App continues: its pool detects the dead connections.
        ingest(app, source)
        with psycopg.connect(embedded_server.url(own_server)) as connection:
            after_crashes = contents(connection)
            connection.execute("TRUNCATE product, picture CASCADE")
        ingest(app, source)
        with psycopg.connect(embedded_server.url(own_server)) as connection:
            assert contents(connection) == after_crashes
            assert len(after_crashes["embedding"]) == 80


def test_a_picture_changed_while_it_is_read_is_refused(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_source(tmp_path, 1)
    monkeypatch.setattr(prepare, "FILE_BYTES", 0)
    original_read, versions = LocalPictures.read, iter([photo(1), photo(2)])
    monkeypatch.setattr(
        LocalPictures, "read", lambda self, name: next(versions, b"") or original_read(self, name)
    )
    report = ingest(app, source, rejects=tmp_path / "r.csv")
    assert report.rejected == 1
    assert "changed while it was read" in (tmp_path / "r.csv").read_text()
