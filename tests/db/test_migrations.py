"""Migrations create exactly the tables that the code declares, and drop them again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import psycopg
import pytest
from alembic.config import CommandLine, Config
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, Connection
from sqlalchemy.dialects import postgresql

from app.bootstrap import App
from app.config import Settings
from app.db.embedded import binaries
from app.db.embedded.server import url
from app.db.schema import SCHEMA_REVISION, metadata
from app.errors import DatabaseUnavailable, SchemaMismatch
from app.operations.migrate import migrate
from support.paths import REPO


@dataclass(frozen=True)
class Ran:
    """The exit code and the output of alembic."""

    returncode: int
    stdout: str
    stderr: str


def alembic(url: str, *words: str) -> Ran:
    """`alembic WORDS` in the top folder of the repository, in this process."""
    out, err, code = StringIO(), StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv("LOOKALIKE_DATABASE_URL", url)
        patch.chdir(REPO)
        line = CommandLine("alembic")
        options = line.parser.parse_args(words)
        config = Config(
            toml_file="pyproject.toml", cmd_opts=options, stdout=out, output_buffer=out
        )  # fmt: skip
        try:
            line.run_cmd(config, options)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
    return Ran(code, out.getvalue(), err.getvalue())


def alembic_process(url: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run plain alembic in the top folder of the repository, as a DBA would."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "alembic", *words],
        cwd=REPO,
        env=os.environ | {"LOOKALIKE_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


def tables(url: str) -> set[object]:
    names = rows(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {name for (name,) in names} - {"alembic_version"}


def test_plain_alembic_creates_all_tables_without_a_model(empty_url: str) -> None:
    done = alembic_process(empty_url, "upgrade", "head")
    assert done.returncode == 0, done.stderr
    assert tables(empty_url) == set(metadata.tables)
    assert rows(empty_url, "SELECT count(*) FROM model") == [(0,)]
    assert rows(empty_url, "SELECT to_regnamespace('analytics')") == [(None,)]


def test_alembic_check_finds_no_difference_from_the_declared_tables(database_url: str) -> None:
    done = alembic(database_url, "check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_alembic_check_detects_a_column_of_another_type(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("ALTER TABLE index_build ALTER snapshot TYPE text")
        connection.execute("ALTER TABLE picture DROP COLUMN created_at")
        connection.execute("ALTER TABLE query_sample ALTER vec TYPE vector")
    done = alembic(database_url, "check")
    assert done.returncode != 0
    assert "VECTOR()" in done.stdout + done.stderr
    assert "modify_type" in done.stdout + done.stderr
    assert "add_column" in done.stdout + done.stderr


def test_downgrade_drops_everything_and_upgrade_creates_it_again(database_url: str) -> None:
    assert alembic(database_url, "downgrade", "base").returncode == 0
    assert tables(database_url) == set()
    ours = "SELECT proname FROM pg_proc WHERE proname ~ '^stamp_embedding|^register_model'"
    assert rows(database_url, ours) == []
    assert alembic(database_url, "upgrade", "head").returncode == 0
    assert tables(database_url) == set(metadata.tables)


def test_the_sql_script_for_a_dba_creates_the_same_tables(empty_url: str) -> None:
    script = alembic(empty_url, "upgrade", "head", "--sql")
    assert script.returncode == 0, script.stderr
    psql = [binaries.binary("psql"), "-Xq", "-v", "ON_ERROR_STOP=1", empty_url]
    done = subprocess.run(psql, input=script.stdout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert tables(empty_url) == set(metadata.tables)


def test_a_migration_interrupted_during_an_index_build_can_be_repeated(
    database_url: str,
) -> None:
    assert alembic(database_url, "downgrade", "0002").returncode == 0
    with (
        psycopg.connect(database_url) as holder,
        psycopg.connect(database_url, autocommit=True) as sql,
    ):
        holder.execute("LOCK TABLE product_picture IN ROW EXCLUSIVE MODE")
        environment = os.environ | {"LOOKALIKE_DATABASE_URL": database_url}
        command = [sys.executable, "-m", "alembic", "upgrade", "head"]
        running = subprocess.Popen(command, cwd=REPO, env=environment, stderr=subprocess.DEVNULL)
        waiting = (
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database() AND query LIKE 'CREATE INDEX CONCURRENTLY%'"
        )
        deadline = time.monotonic() + 300
        while not sql.execute(waiting).fetchall():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert running.wait(300) != 0
    assert alembic(database_url, "upgrade", "head").returncode == 0
    valid = "SELECT indisvalid FROM pg_index WHERE indrelid = 'product_picture'::regclass"
    assert all(row[0] for row in rows(database_url, valid))


@pytest.mark.parametrize("had_it", [True, False])
def test_a_column_from_an_earlier_form_of_a_migration_is_accepted(
    database_url: str, had_it: bool
) -> None:
    assert alembic(database_url, "downgrade", "0002").returncode == 0
    with psycopg.connect(database_url) as connection:
        column = "SELECT count(*) FROM information_schema.columns WHERE column_name = 'stamped_by'"
        assert connection.execute(column).fetchone() == (0,)
        if had_it:
            connection.execute("ALTER TABLE index_build ADD COLUMN stamped_by text")
    done = alembic(database_url, "upgrade", "head")
    assert done.returncode == 0, done.stderr
    assert alembic(database_url, "check").returncode == 0


def test_the_revision_of_the_code_is_the_newest_migration() -> None:
    scripts = ScriptDirectory.from_config(Config(toml_file=str(REPO / "pyproject.toml")))
    assert scripts.get_heads() == [SCHEMA_REVISION]


def test_migrating_again_changes_nothing(database_url: str, tmp_path: Path) -> None:
    with App(Settings(home=tmp_path, database_url=database_url)) as app:
        assert migrate(app.engine) == migrate(app.engine) == SCHEMA_REVISION
    assert rows(database_url, "SELECT count(*) FROM analytics.products") == [(0,)]


def test_a_migration_that_loses_its_connection_reports_the_original_error(
    database_url: str, server_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(connection: Connection) -> None:
        name = connection.engine.url.database
        with psycopg.connect(url(server_home, "postgres"), autocommit=True) as admin:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    monkeypatch.setattr("app.operations.migrate._replay", lose)
    lost = pytest.raises(DatabaseUnavailable, match="terminating connection")
    with App(Settings(home=tmp_path, database_url=database_url)) as app, lost:
        migrate(app.engine)


# Objects that SQLAlchemy's comparison ignores


def test_every_declared_check_constraint_is_in_the_database(database_url: str) -> None:
    spell = postgresql.dialect().identifier_preparer.format_constraint
    here = {
        (table.name, spell(check))
        for table in metadata.tables.values()
        for check in table.constraints
        if isinstance(check, CheckConstraint)
    }
    query = "SELECT conrelid::regclass::text, conname FROM pg_constraint"
    there = set(rows(database_url, query + " WHERE contype = 'c' AND conrelid <> 0"))
    partition = {name for table, name in there if table == "embedding_m1"}
    assert here == {(table, name) for table, name in there if table != "embedding_m1"}
    assert partition == {f"embedding_m1_{what}_check" for what in ("model_id", "dim", "unit")}


def test_a_partition_has_its_indexes_its_storage_and_its_stamp_trigger(database_url: str) -> None:
    indexes = dict(
        rows(
            database_url,
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'embedding_m1'",
        )
    )
    assert set(indexes) == {
        "embedding_m1_pkey",
        "embedding_m1_changed_in_idx",
    }
    assert "(picture_id, model_id)" in str(indexes["embedding_m1_pkey"])
    storage = "SELECT attstorage FROM pg_attribute WHERE attrelid = 'embedding_m1'::regclass"
    assert rows(database_url, storage + " AND attname = 'vec'") == [("p",)]
    stamp = (
        "SELECT tgrelid::regclass::text, tgenabled FROM pg_trigger WHERE tgname = 'embedding_stamp'"
    )
    assert set(rows(database_url, stamp)) == {("embedding", "A"), ("embedding_m1", "A")}


def test_at_most_one_model_is_active(sql: psycopg.Connection) -> None:
    sql.execute("SELECT register_model('other', '1', 8, 'other')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql.execute("UPDATE model SET active = true")


def test_the_same_fingerprint_is_the_same_model(sql: psycopg.Connection) -> None:
    register = "SELECT register_model('other', '1', 8, 'one fingerprint')"
    assert sql.execute(register).fetchone() == sql.execute(register).fetchone()


def test_two_hosts_may_register_the_same_model_concurrently(
    sql: psycopg.Connection, database_url: str
) -> None:
    with psycopg.connect(database_url) as first, psycopg.connect(database_url) as second:
        first.execute("SELECT register_model('other', '1', 8, 'f')")
        second.execute("SET statement_timeout = '300ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            second.execute("SELECT register_model('other', '1', 8, 'f')")
        second.rollback()
        second.execute("SET statement_timeout = 0")
        first.commit()
        second.execute("SELECT register_model('other', '1', 8, 'f')")
        second.commit()
    assert sql.execute("SELECT count(*) FROM model WHERE fingerprint = 'f'").fetchone() == (1,)


BAD = {
    "of another dimension": "[1,0,0,0]",
    "not of length 1": "[3,0,0,0,0,0,0,0]",
    "zero": "[0,0,0,0,0,0,0,0]",
}


@pytest.mark.parametrize("vector", BAD.values(), ids=BAD.keys())
def test_a_vector_is_refused_that_is(sql: psycopg.Connection, vector: str) -> None:
    sql.execute("SELECT register_model('other', '1', 8, 'other')")
    sql.execute("INSERT INTO picture (sha256, width, height, thumbnail)"
                " VALUES (sha256('x'), 1, 1, '')")  # fmt: skip
    with pytest.raises(psycopg.errors.CheckViolation):
        sql.execute("INSERT INTO embedding (model_id, picture_id, vec) SELECT 2, id, %s::halfvec"
                    " FROM picture", [vector])  # fmt: skip


def test_text_search_ignores_accents_and_case(sql: psycopg.Connection) -> None:
    sql.execute("INSERT INTO product (sku, title, brand) VALUES ('1', 'ÉCLAIR Crème', 'Ünal')")
    query = (
        "SELECT count(*) FROM product WHERE words @@ to_tsquery('simple', 'eclair & creme & unal')"
    )
    assert sql.execute(query).fetchone() == (1,)


def test_a_title_of_a_million_words_is_stored(sql: psycopg.Connection) -> None:
    title = " ".join(f"word{n}" for n in range(300_000))
    sql.execute("INSERT INTO product (sku, title) VALUES ('1', %s)", [title])


def test_a_database_of_another_revision_is_detected(app: App, sql: psycopg.Connection) -> None:
    sql.execute("UPDATE alembic_version SET version_num = '0000'")
    with pytest.raises(SchemaMismatch, match="lookalike migrate"):
        app.catalog.model()
    sql.execute("UPDATE alembic_version SET version_num = '9999'")
    sql.execute("UPDATE schema_serves SET code_since = '9999'")
    with pytest.raises(SchemaMismatch, match="newer"):
        app.catalog.model()


def test_rows_with_stamps_of_a_later_cluster_are_restamped(
    app: App, sql: psycopg.Connection
) -> None:
    sql.execute("INSERT INTO picture (sha256, width, height, thumbnail)"
                " VALUES (sha256('x'), 1, 1, '')")  # fmt: skip
    sql.execute("ALTER TABLE embedding DISABLE TRIGGER embedding_stamp")
    vector = "[" + ",".join(["1"] + ["0"] * 48) + "]"
    sql.execute("INSERT INTO embedding (model_id, picture_id, vec, changed_in)"
                " SELECT 1, id, %s::halfvec, '99999999999' FROM picture", [vector])  # fmt: skip
    sql.execute("ALTER TABLE embedding ENABLE ALWAYS TRIGGER embedding_stamp")
    for table, values in (
        ("product", "(sku, changed_in) VALUES ('A', '99999999999')"),
        ("product_picture", "(product_id, picture_id, position, uri, changed_in)"
         " SELECT product.id, picture.id, 0, '', '99999999999' FROM product, picture"),
    ):  # fmt: skip
        sql.execute(f"ALTER TABLE {table} DISABLE TRIGGER {table}_stamp")
        sql.execute(f"INSERT INTO {table} {values}")
        sql.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_stamp")
    migrate(app.engine)
    for table in ("embedding", "product", "product_picture"):
        stamp = f"SELECT changed_in < pg_current_xact_id() FROM {table}"
        assert sql.execute(stamp).fetchone() == (True,)
