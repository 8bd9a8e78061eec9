"""A backup: what it holds, who may read it, what its commands print, and no secret in it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import psycopg
import pytest
from sqlalchemy import Connection, make_url

from app import atomic_files
from app.bootstrap import App
from app.cli import main
from app.config import Settings
from app.db import client_tools
from app.db.embedded import server as embedded_server
from app.db.engine import make_engine
from app.db.queries import database_info
from app.db.schema import SCHEMA_REVISION
from app.errors import BadInput, SchemaMismatch
from app.operations import backup_manifest
from app.operations.backup import DUMP, BackupFailed, backup
from app.operations.backup_manifest import Manifest
from app.operations.restore import restore
from support import servers
from support.backups import FILLED, ask, tables
from support.colours import choose_colours
from support.paths import REPO
from support.shop import add, numbered

pytestmark = pytest.mark.xdist_group("backup")  # the backup is made once


def test_the_manifest_describes_the_backup(stored: Path) -> None:
    manifest = backup_manifest.read(stored)
    assert manifest.rows["public.product"] == manifest.rows["public.embedding"] == 12
    assert "public.index_chunk" not in manifest.rows and manifest.postgresql_major == 18
    assert manifest.model is not None and manifest.model.name == "colours"
    assert manifest.made_at.utcoffset() is not None and manifest.revision == SCHEMA_REVISION
    assert backup_manifest.describe(stored / DUMP) == manifest.files[DUMP]
    assert {path.name for path in stored.iterdir()} == {DUMP, backup_manifest.NAME}


def test_a_backup_is_readable_by_its_owner_only(stored: Path) -> None:
    assert [each.stat().st_mode & 0o077 for each in (stored, *stored.iterdir())] == [0, 0, 0]


def test_photos_that_people_searched_with_are_in_no_backup_unless_asked_for(
    app: App, elsewhere: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    """They are deleted in time, and a backup is kept for longer; keys are digests and stay."""
    add(app, numbered(1))
    sql.execute(FILLED)
    manifest = backup(app.engine, tmp_path / "b")
    assert {"public.query_photo", "public.kept_photo"} <= set(manifest.left_out)
    restore(elsewhere.engine, tmp_path / "b")
    counts = {"query_photo": 0, "kept_photo": 0, "api_key": 1, "search_event": 1}
    for table, rows in counts.items():
        assert ask(elsewhere, f"SELECT count(*) FROM {table}") == [(rows,)], table


def test_a_backup_contains_a_single_snapshot(app: App, elsewhere: App, tmp_path: Path) -> None:
    """Rows written between counting and dumping are not included."""
    add(app, numbered(3))
    manifest = backup(
        app.engine, tmp_path / "b", notify=lambda message: add(app, {f"LATE-{len(message)}": [40]})
    )
    assert manifest.rows["public.product"] == 3
    restore(elsewhere.engine, tmp_path / "b")
    assert ask(elsewhere, "SELECT count(*) FROM product") == [(3,)]


# Refused targets


@pytest.mark.parametrize("what", ["a file", "a folder with something in it"])
def test_a_target_that_is_in_use_is_refused(app: App, tmp_path: Path, what: str) -> None:
    target = tmp_path / "target"
    if what == "a file":
        target.write_text("precious")
    else:
        target.mkdir()
        (target / "precious").write_text("precious")
    with pytest.raises(BadInput, match="Name a new folder"):
        backup(app.engine, target)
    existing = target if what == "a file" else target / "precious"
    assert existing.read_text() == "precious"


def test_an_empty_folder_is_filled(app: App, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    backup(app.engine, tmp_path / "target")
    assert (tmp_path / "target" / DUMP).exists()


def test_a_database_without_tables_is_not_backed_up(elsewhere: App, tmp_path: Path) -> None:
    with pytest.raises(SchemaMismatch, match="nothing to back up"):
        backup(elsewhere.engine, tmp_path / "b")
    assert not list(tmp_path.glob("*b*"))


def test_a_database_that_is_newer_than_the_code_is_not_backed_up(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    sql.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaMismatch, match="Update Lookalike"):
        backup(app.engine, tmp_path / "b")


# Failures during a backup


def nothing_left(folder: Path) -> bool:
    return not folder.exists() or list(folder.iterdir()) == []


def test_a_server_that_stops_leaves_no_backup(tmp_path: Path) -> None:
    with servers.own_server() as home, App(Settings(home=home), choose=choose_colours) as app:
        app.initialise()

        def crash(_message: str) -> None:
            if embedded_server.running(home):
                servers.crash(home)

        with pytest.raises(BackupFailed, match="No backup was made: "):
            backup(app.engine, tmp_path / "into" / "b", notify=crash)
    assert nothing_left(tmp_path / "into")


def test_the_error_for_a_table_dropped_during_a_backup_does_not_advise_a_migration(
    app: App, sql: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like the partition of a model that is dropped at that moment."""
    sql.execute("CREATE TABLE embedding_m9 (n int)")
    listed = database_info.tables

    def dropped_meanwhile(connection: Connection) -> list[str]:
        names = listed(connection)
        sql.execute("DROP TABLE embedding_m9")
        return names

    monkeypatch.setattr(database_info, "tables", dropped_meanwhile)
    with pytest.raises(BackupFailed, match="when a model is deleted"):
        backup(app.engine, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_folder_that_cannot_be_written_is_named(app: App, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BackupFailed, match="No backup was made in"):
        backup(app.engine, tmp_path / "file" / "b")


@pytest.mark.parametrize(
    "code, advice",
    [(errno.EACCES, f"the user {os.getuid()} write to"), (errno.EROFS, "file system that can be")],
)
def test_a_folder_of_another_user_is_an_error_with_advice(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, advice: str
) -> None:
    denied = MagicMock(side_effect=OSError(code, os.strerror(code)))
    monkeypatch.setattr(atomic_files, "replace_folder", denied)  # root is denied nothing
    with pytest.raises(BackupFailed, match=advice):
        backup(app.engine, tmp_path / "b")


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_restore_leaves_nothing(
    elsewhere: App, stored: Path, by: signal.Signals
) -> None:
    with psycopg.connect(str(elsewhere.settings.database_url)) as other:
        other.execute("CREATE SCHEMA analytics")  # pg_restore waits for the end of this transaction
        run = started(elsewhere, "restore", stored)
        restoring = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg_restore'"
        servers.wait_until(
            lambda: ask(elsewhere, restoring) == [(1,)], "pg_restore does not begin", 60
        )
        run.send_signal(by)
        _, error = run.communicate(timeout=300)
        other.rollback()
    assert run.returncode == 130 and "Traceback" not in error, error
    servers.wait_until(lambda: ask(elsewhere, restoring) == [(0,)], "pg_restore goes on")
    assert tables(elsewhere) == []


PROGRAM = """
import resource, sys
from app.cli import main
limit = {limit}
if limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.argv = ["lookalike", {command!r}, {folder!r}]
main()
"""


def started(app: App, command: str, folder: Path, limit: int = 0) -> subprocess.Popen[str]:
    """A command in a separate process; none of its files may grow beyond `limit` bytes."""
    environment = {
        **os.environ,
        "LOOKALIKE_DATABASE_URL": str(app.settings.database_url),
        "PYTHONPATH": str(REPO),
    }
    program = PROGRAM.format(limit=limit, command=command, folder=str(folder))
    return subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE, text=True
    )


def test_a_disk_that_is_full_leaves_no_backup(app: App, tmp_path: Path) -> None:
    add(app, numbered(60))
    run = started(app, "backup", tmp_path / "into" / "b", limit=16_384)
    _, error = run.communicate(timeout=300)
    assert run.returncode == 1 and "Error: No backup was made" in error, error
    assert "Traceback" not in error and nothing_left(tmp_path / "into")


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_backup_leaves_nothing(
    app: App, sql: psycopg.Connection, tmp_path: Path, by: signal.Signals
) -> None:
    sql.autocommit = False
    sql.execute("LOCK TABLE index_chunk")  # pg_dump waits for it
    run = started(app, "backup", tmp_path / "into" / "b")
    dumping = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg_dump'"
    servers.wait_until(lambda: ask(app, dumping) == [(1,)], "pg_dump does not begin", 60)
    run.send_signal(by)
    _, error = run.communicate(timeout=300)
    sql.rollback()
    assert run.returncode == 130 and "Traceback" not in error, error
    assert nothing_left(tmp_path / "into")
    servers.wait_until(lambda: ask(app, dumping) == [(0,)], "pg_dump goes on")


def test_a_password_is_in_no_command_line(server_home: Path) -> None:
    url = make_url(embedded_server.url(server_home, "postgres")).set(password="s3cret w0rd")
    engine = make_engine(Settings(database_url=url.render_as_string(hide_password=False)))
    address, environment = client_tools._connection(engine)
    assert "s3cret" not in address and environment["PGPASSWORD"] == "s3cret w0rd"
    engine.dispose()


def test_the_options_of_an_address_reach_the_programs() -> None:
    url = "postgresql://me@example.org:6000/shop?sslmode=verify-full&sslrootcert=%2Fa%20b"
    engine = make_engine(Settings(database_url=url))
    parameters = psycopg.conninfo.conninfo_to_dict(client_tools._connection(engine)[0])
    assert parameters == {
        "host": "example.org", "port": "6000", "user": "me", "dbname": "shop",
        "sslmode": "verify-full", "sslrootcert": "/a b",
    }  # fmt: skip


def test_a_secret_that_only_a_command_line_could_carry_is_refused() -> None:
    url = "postgresql://me@example.org/shop?sslpassword=hush"
    with pytest.raises(BadInput, match="sslpassword") as error:
        client_tools._connection(make_engine(Settings(database_url=url)))
    assert "hush" not in str(error.value)


def test_no_manifest_holds_a_password(stored: Path) -> None:
    assert "password" not in (stored / backup_manifest.NAME).read_text()
    assert isinstance(backup_manifest.read(stored), Manifest)


def test_a_long_dump_reports_its_progress(
    app: App, tmp_path: Path, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_tools, "PROGRESS_INTERVAL_S", 0.05)
    messages: list[str] = []
    sql.autocommit = False
    sql.execute("LOCK TABLE index_chunk")

    def notify(message: str) -> None:
        messages.append(message)
        if len(messages) == 4:
            sql.rollback()

    backup(app.engine, tmp_path / "b", notify=notify)
    assert messages[0].endswith("tables") and len(messages) >= 4
    assert not any(message.startswith("pg_dump") for message in messages)


# The command line


def lookalike(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], app: App, *words: object
) -> tuple[int, str, str]:
    """Run `lookalike` in this process on the database of `app`: exit code, stdout, stderr."""
    monkeypatch.setenv("LOOKALIKE_HOME", str(app.settings.home))
    monkeypatch.setenv("LOOKALIKE_DATABASE_URL", str(app.settings.database_url))
    monkeypatch.setattr(sys, "argv", ["lookalike", *map(str, words)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    output = capsys.readouterr()
    assert "Traceback" not in output.out + output.err
    assert isinstance(ended.value.code, int)
    return ended.value.code, output.out, output.err


def test_the_commands_print_the_amounts_and_the_next_step(
    app: App, elsewhere: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    add(app, numbered(3))
    code, out, _ = lookalike(monkeypatch, capsys, app, "backup", tmp_path / "b")
    assert code == 0 and out.startswith("3 products backed up in ")
    code, out, err = lookalike(monkeypatch, capsys, elsewhere, "restore", tmp_path / "b")
    assert code == 0 and out.startswith("3 products restored as of ")
    assert "lookalike index rebuild" in err
    code, _, err = lookalike(monkeypatch, capsys, elsewhere, "restore", tmp_path / "b")
    assert code == 1 and err.startswith("checking") and "Error: This database is in use" in err


def test_a_check_prints_the_damage_and_has_a_matching_exit_code(
    app: App, tmp_path: Path, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    add(app, numbered(3))
    code, out, err = lookalike(monkeypatch, capsys, app, "check")
    assert (code, out) == (0, "No damage was found.\n") and "Not checked: the encoder" in err
    sql.execute("UPDATE product SET identity_key = 'x'")
    code, out, _ = lookalike(monkeypatch, capsys, app, "check")
    assert code == 1 and "bad  products whose identity key" in out and ": 3 (P0000, P0001" in out
    code, out, _ = lookalike(monkeypatch, capsys, app, "check", "--repair", "--json")
    report = json.loads(out)
    assert code == 0 and report["healthy"] and report["findings"][0]["kind"] == "identity-keys"
    code, _, err = lookalike(monkeypatch, capsys, app, "check", "--images", tmp_path / "none")
    assert code == 1 and "Error: The folder of the pictures" in err
