"""Backup and restore: the same catalogue comes back, or an error gives the reason."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
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
from app.db.queries import database_info, pgvector_index
from app.db.schema import SCHEMA_REVISION
from app.duplicates.verdicts import decide
from app.errors import BadInput, DatabaseUnsuitable, SchemaMismatch
from app.operations import backup_manifest
from app.operations.backup import DUMP, BackupFailed, backup
from app.operations.backup_manifest import BadBackup, Manifest
from app.operations.integrity import CheckOptions, check
from app.operations.migrate import migrate
from app.operations.restore import RestoreFailed, restore
from app.types import Query
from support import servers
from support.colours import choose_colours, photo
from support.fallback import build_pgvector_index
from support.paths import REPO
from support.shop import add, numbered

Make = Callable[[str | None], str]


@pytest.fixture
def elsewhere(new_database: Make, tmp_path: Path) -> Iterator[App]:
    """Services on a new, empty database, with a separate folder of index files."""
    settings = Settings(home=tmp_path / "elsewhere", database_url=new_database(None))
    with App(settings, choose=choose_colours) as app:
        yield app


@pytest.fixture(scope="module")
def stored(server_home: Path, template: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of a catalogue of twelve products with both indexes. Read-only."""
    with psycopg.connect(embedded_server.url(server_home, "postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE backed_up TEMPLATE {template}")
    folder = tmp_path_factory.mktemp("backups")
    url = embedded_server.url(server_home, "backed_up")
    with App(Settings(home=folder / "home", database_url=url), choose=choose_colours) as app:
        add(app, numbered(12))
        app.indexer.rebuild()
        build_pgvector_index(app)
        backup(app.engine, folder / "stored")
    with psycopg.connect(embedded_server.url(server_home, "postgres"), autocommit=True) as admin:
        admin.execute("DROP DATABASE backed_up WITH (FORCE)")
    return folder / "stored"


@pytest.fixture
def copy(stored: Path, tmp_path: Path) -> Path:
    """A copy of the backup that a test may damage."""
    return Path(shutil.copytree(stored, tmp_path / "copy"))


def change(folder: Path, **fields: object) -> None:
    """Change values of a manifest."""
    file = folder / backup_manifest.NAME
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def tables(app: App) -> list[str]:
    with app.engine.connect() as connection:
        sql = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        return list(connection.exec_driver_sql(sql + " AND relkind = 'r'").scalars())


def ask(app: App, sql: str) -> list[tuple[object, ...]]:
    with app.engine.connect() as connection:
        plain = connection.execution_options(no_parameters=True)
        return [tuple(row) for row in plain.exec_driver_sql(sql)]


def test_a_restored_catalogue_gives_the_same_search_results(
    app: App, elsewhere: App, tmp_path: Path
) -> None:
    add(app, {**numbered(12), "TWO": [1, 50]}, brand="Kestrel", year=2020, attributes={"a": [1]})
    decide(app.engine, "P0001", "TWO", True, "Ada")
    backup(app.engine, tmp_path / "b")
    restore(elsewhere.engine, tmp_path / "b")
    query = Query(picture=photo(3), k=10)
    assert elsewhere.search.search(query).matches == app.search.search(query).matches
    everything = "SELECT sku, title, attributes, identity_key, created_at FROM product ORDER BY id"
    decided = "SELECT * FROM duplicate_verdict"
    assert ask(elsewhere, everything) == ask(app, everything)
    assert ask(elsewhere, decided) == ask(app, decided) != []


def test_a_restored_catalogue_can_be_indexed_and_changed_and_continues_its_id_sequence(
    elsewhere: App, stored: Path
) -> None:
    restore(elsewhere.engine, stored)
    assert elsewhere.indexer.rebuild().state == "published"
    add(elsewhere, {"NEW": [100]})
    plan = elsewhere.search.search(Query(picture=photo(100), k=3)).plan
    assert (plan.path, plan.delta_rows) == ("faiss", 1)


def test_pgvectors_index_is_not_restored_but_built(
    elsewhere: App,
    stored: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With the memory that this server has for it."""
    monkeypatch.setattr(pgvector_index, "MIN_ROWS", 10)
    assert "embedding_m1_ivf1_idx" in client_tools.output(
        "pg_restore", "--list", str(stored / DUMP)
    )
    restore(elsewhere.engine, stored)
    assert "Building pgvector's index of colours" in caplog.text
    with elsewhere.engine.connect() as connection:
        assert pgvector_index.measured(connection, 1) is not None


def test_every_restored_row_has_the_transaction_id_of_the_restore(
    app: App, elsewhere: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    """All rows, not only those stamped in the future: they are stamped as they are inserted."""
    add(app, numbered(3))
    for table, column in (("embedding", "vec"), ("product", "sku"), ("product_picture", "uri")):
        sql.execute(f"ALTER TABLE {table} DISABLE TRIGGER {table}_stamp")
        sql.execute(f"UPDATE {table} SET {column} = {column}, changed_in = '999999999'")
        oldest = f"WHERE ctid = (SELECT min(ctid) FROM {table})"
        sql.execute(f"UPDATE {table} SET changed_in = '1' {oldest}")
        sql.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_stamp")
    backup(app.engine, tmp_path / "b")
    restore(elsewhere.engine, tmp_path / "b")
    for table in ("embedding", "product", "product_picture"):
        stamps = ask(elsewhere, f"SELECT DISTINCT changed_in, xmin FROM {table}")
        assert len(stamps) == 1 and int(str(stamps[0][0])) == int(str(stamps[0][1])), table


def test_the_stamp_triggers_are_on_always_after_a_restore(elsewhere: App, stored: Path) -> None:
    restore(elsewhere.engine, stored)
    triggers = ask(
        elsewhere,
        "SELECT tgrelid::regclass::text, tgenabled::text FROM pg_trigger"
        " WHERE NOT tgisinternal AND tgname ~ '_stamp$'",
    )
    assert sorted(triggers) == [
        (table, "A") for table in ("embedding", "embedding_m1", "product", "product_picture")
    ]


def test_builds_of_the_backed_up_database_are_retired_and_their_files_kept(
    elsewhere: App, stored: Path
) -> None:
    restore(elsewhere.engine, stored)
    assert ask(elsewhere, "SELECT state, reason, sha256 FROM index_build") == [
        ("retired", "built in another database", None)
    ]
    assert ask(elsewhere, "SELECT count(*) FROM index_chunk") == [(0,)]


def test_restored_tables_are_analysed(elsewhere: App, stored: Path) -> None:
    restore(elsewhere.engine, stored)
    names = ("product", "picture", "product_picture", "embedding_m1")
    sql = "SELECT reltuples FROM pg_class WHERE relname = '{}'"
    assert [ask(elsewhere, sql.format(name)) for name in names] == [[(12.0,)]] * 4


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


FILLED = """
SELECT register_model('other', '1', 3, 'abc');
INSERT INTO embedding (model_id, picture_id, vec) SELECT 2, id, '[1,0,0]' FROM picture;
INSERT INTO query_sample (model_id, vec) SELECT model_id, vec FROM embedding;
INSERT INTO tuning (model_id, exact_pictures, deep_share) VALUES (1, 7, 0.5);
INSERT INTO calibration (model_id, category, similar_distance) VALUES (1, 'a''"\\b', 0.25);
INSERT INTO model_change (former_id, active_id, former_name, active_name, forced)
    VALUES (2, 1, 'other', 'colours', 'for once');
INSERT INTO model_projection (model_id, base_name, base_revision, base_fingerprint, weights,
    provenance) VALUES (2, 'colours', '1', 'def', '\\x00', '{"source": "verdicts"}');
INSERT INTO ingest_run (source, state, report) VALUES ('x', 'finished', '{"added": 1}');
INSERT INTO ingest_reject (run_id, line, reason) VALUES (1, 1, 'no picture');
INSERT INTO query_photo (id, fingerprint, vector, preview, expires_at)
    VALUES ('p', 'abc', '\\x00', '\\xff', now() + interval '1 hour');
INSERT INTO api_key (id, name, scope, digest, origins)
    VALUES ('k', 'shop', 'search', sha256('x'), '{https://shop.example}');
INSERT INTO kept_photo (id, preview) VALUES ('p', '\\xff');
SELECT add_search_partitions(0);
INSERT INTO search_request (query_id, kind, k, skipped, shown, folded, model, path)
    VALUES ('q', 'text', 5, 0, '{P0001}', '{}', 'colours', 'words');
INSERT INTO search_event (query_id, action_name, sku) VALUES ('q', 'click', 'P0001');
INSERT INTO api_secret (name, secret) VALUES ('cursors', '\\x01');
INSERT INTO picture_colours SELECT id, 1, 3, 200, convert_to(repeat('x', 18), 'utf8') FROM picture;
"""


def test_every_row_of_every_table_is_restored(
    app: App, elsewhere: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    """Except stamps, which are renewed, and builds, which belong to the other database."""
    add(app, {**numbered(4), "TWO": [1, 50]}, brand="Kestrel", price=1.5, attributes={"a": [1]})
    app.catalog.delete(["P0003"])
    decide(app.engine, "P0001", "TWO", True, "Ada")
    sql.execute(FILLED)
    backup(app.engine, tmp_path / "b", photos=True)
    restore(elsewhere.engine, tmp_path / "b")
    for table in tables(app):
        if table not in ("index_build", "index_chunk"):
            rows = f"SELECT (to_jsonb(t) - 'changed_in')::text FROM {table} AS t ORDER BY 1"
            assert ask(elsewhere, rows) == ask(app, rows) != [], table


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


def test_a_database_before_its_migration_is_backed_up_and_restored_at_this_one(
    app: App, elsewhere: App, tmp_path: Path
) -> None:
    from alembic import command

    from app.operations.migrate import _config

    add(app, numbered(2))
    with app.engine.connect() as connection:
        command.downgrade(_config(connection), "0004")
        connection.commit()
    assert backup(app.engine, tmp_path / "b").revision == "0004"
    restore(elsewhere.engine, tmp_path / "b")
    assert ask(elsewhere, "SELECT version_num FROM alembic_version") == [(SCHEMA_REVISION,)]
    assert elsewhere.search.search(Query(picture=photo(1), k=2)).matches[0].product.sku == "P0001"


def test_a_backup_goes_from_one_server_to_another(stored: Path) -> None:
    with servers.own_server() as home:
        engine = make_engine(Settings(home=home))
        restore(engine, stored)
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM product").scalar_one() == 12
        engine.dispose()


def pgvector_apart(url: str) -> str:
    """The URL of a database whose pgvector is in a separate schema."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA apart")
        connection.execute("CREATE EXTENSION vector SCHEMA apart")
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET search_path = public, apart")
    return url


def test_pgvector_may_be_in_another_schema(
    new_database: Make, elsewhere: App, tmp_path: Path
) -> None:
    urls = [pgvector_apart(new_database(None)) for _ in range(2)]
    with App(Settings(home=tmp_path, database_url=urls[0]), choose=choose_colours) as app:
        app.initialise()
        add(app, numbered(3))
        backup(app.engine, tmp_path / "b")
    with App(Settings(home=tmp_path, database_url=urls[1]), choose=choose_colours) as app:
        restore(app.engine, tmp_path / "b")
        assert app.search.search(Query(picture=photo(1), k=1)).matches[0].product.sku == "P0001"
    refused(elsewhere, tmp_path / "b", DatabaseUnsuitable, "CREATE EXTENSION vector SCHEMA apart")


# Refused targets and backups


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


def test_nothing_is_restored_over_a_database_in_use(app: App, stored: Path) -> None:
    add(app, {"MINE": [1]})
    with pytest.raises(BadInput, match=r"in use.*Nothing was overwritten"):
        restore(app.engine, stored)
    assert ask(app, "SELECT sku FROM product") == [("MINE",)]


def refused(app: App, folder: Path, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        restore(app.engine, folder)
    assert tables(app) == []


def test_a_folder_without_a_backup_is_refused(elsewhere: App, tmp_path: Path) -> None:
    refused(elsewhere, tmp_path, BadBackup, "is no backup")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 1}', '{"format": "one"}', "\u00e9\x00", '{"format": true}']
)
def test_an_invalid_manifest_is_refused(elsewhere: App, copy: Path, text: str) -> None:
    (copy / backup_manifest.NAME).write_text(text)
    refused(elsewhere, copy, BadBackup, "not the manifest")


def test_a_manifest_of_another_encoding_is_refused(elsewhere: App, copy: Path) -> None:
    (copy / backup_manifest.NAME).write_bytes(b"\xff\xfe\x00")
    refused(elsewhere, copy, BadBackup, "not the manifest")


def test_a_backup_of_a_later_format_is_refused(elsewhere: App, copy: Path) -> None:
    change(copy, format=2, lookalike="7.0")
    refused(elsewhere, copy, BadBackup, r"format 2.*7\.0")


def test_a_backup_of_a_later_migration_is_refused(elsewhere: App, copy: Path) -> None:
    change(copy, revision="9999")
    refused(elsewhere, copy, SchemaMismatch, "Update Lookalike")


def test_a_backup_of_a_later_postgresql_is_refused(elsewhere: App, copy: Path) -> None:
    change(copy, postgresql="19.1", postgresql_major=19)
    refused(elsewhere, copy, DatabaseUnsuitable, "PostgreSQL 19 or newer")


def test_a_backup_that_names_files_elsewhere_is_refused(elsewhere: App, copy: Path) -> None:
    change(copy, files={"../secret": {"sha256": "0", "size": 1}})
    refused(elsewhere, copy, BadBackup, "not the manifest")


def test_a_backup_without_its_dump_is_refused(elsewhere: App, copy: Path) -> None:
    (copy / DUMP).unlink()
    refused(elsewhere, copy, BadBackup, "cannot be read")


@pytest.mark.parametrize("how", ["cut", "changed"])
def test_a_damaged_dump_is_refused(elsewhere: App, copy: Path, how: str) -> None:
    data = bytearray((copy / DUMP).read_bytes())
    if how == "cut":
        del data[-1:]
    else:
        data[len(data) // 2] ^= 1
    (copy / DUMP).write_bytes(data)
    refused(elsewhere, copy, BadBackup, "is not what was written")


def test_a_restore_that_fails_half_way_leaves_nothing(elsewhere: App, copy: Path) -> None:
    """Like a dump that was damaged before it was hashed."""
    (copy / DUMP).write_bytes((copy / DUMP).read_bytes()[:-4000])
    dump = backup_manifest.describe(copy / DUMP)
    change(copy, files={DUMP: {"sha256": dump.sha256, "size": dump.size}})
    refused(elsewhere, copy, RestoreFailed, "Nothing was restored")


def test_missing_rows_after_a_restore_are_an_error(elsewhere: App, copy: Path) -> None:
    change(copy, rows={"public.product": 13})
    with pytest.raises(RestoreFailed, match="12 rows after the restore, 13 were backed up"):
        restore(elsewhere.engine, copy)


# Failures during a backup or a restore


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


def test_a_restore_interrupted_during_its_migration_is_completed_by_migrate_and_check(
    app: App, elsewhere: App, tmp_path: Path
) -> None:
    """A backup from before the last migrations; all of its rows are restored."""
    from alembic import command

    from app.operations.migrate import _config

    add(app, numbered(5))
    app.indexer.rebuild()
    with app.engine.connect() as connection:
        command.downgrade(_config(connection), "0005")
        connection.commit()
    backup(app.engine, tmp_path / "b")

    def interrupt(message: str) -> None:
        if message == "migrating":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(elsewhere.engine, tmp_path / "b", notify=interrupt)
    migrate(elsewhere.engine)
    assert check(
        elsewhere.engine, elsewhere.files, elsewhere.limits, CheckOptions(repair=True)
    ).healthy
    result = elsewhere.search.search(Query(picture=photo(1), k=5))
    assert result.matches[0].product.sku == "P0001" and len(result.matches) == 5


def test_a_restored_catalogue_takes_another_model(
    app: App, elsewhere: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    sql.execute("SELECT register_model('other', '1', 3, 'abc')")
    backup(app.engine, tmp_path / "b")
    restore(elsewhere.engine, tmp_path / "b")
    statement = (
        "SELECT register_model('third', '1', 3, 'def'), register_model('other', '1', 3, 'abc')"
    )
    assert ask(elsewhere, statement) == [(3, 2)]
    parts = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'embedding'::regclass"
    assert ask(elsewhere, parts) == [(2,)]  # the statement in `ask` was rolled back


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
