"""Migrations of a live database: short waits, no failed requests, no lost rows."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, event

from app.bootstrap import App
from app.config import Settings
from app.db.engine import make_engine
from app.db.schema import SCHEMA_REVISION
from app.errors import LockHeld, SchemaMismatch
from app.operations.health import status
from app.operations.migrate import migrate
from app.operations.search_events import EventRow, RequestRow
from app.types import Query
from bench.harness.load_generator import under_load
from support.colours import choose_colours, photo
from support.paths import REPO
from support.servers import wait_until
from support.sources import ingest, write_source

SCRIPTS = ScriptDirectory.from_config(Config(toml_file=str(REPO / "pyproject.toml")))
REVISIONS = [script.revision for script in reversed(list(SCRIPTS.walk_revisions()))]
STEPS = list(itertools.pairwise(REVISIONS))

DISABLED_RULES = {
    "require-statement-timeout": "the build of an index on a large table has no fixed duration, "
    "and waits for locks end by lock_timeout",
    "prefer-robust-stmts": "IF NOT EXISTS would keep the invalid index of an interrupted "
    "attempt: it is dropped first, and a test interrupts one",
    "prefer-bigint-over-int": "models and counts of pairs stay far below 2^31",
    "prefer-bigint-over-smallint": "numbers of colours, their shares and the version of their "
    "computation stay far below 2^15",
}
"""Rules of squawk that are disabled, with the reason."""


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(Settings(database_url=database_url))
    yield engine
    engine.dispose()


def step(engine: Engine, to: str) -> None:
    """Upgrade or downgrade to a revision, as alembic does."""
    config = Config(toml_file=str(REPO / "pyproject.toml"))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        at = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
        connection.commit()
        (command.upgrade if to > at else command.downgrade)(config, to)
        connection.commit()


def values(url: str, query: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute(query)]


# Locks of a migration

TABLES = """SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
    AND relkind IN ('r', 'p') AND NOT relispartition"""

EXCLUSIVE = """SELECT relation::regclass::text FROM pg_locks WHERE mode = 'AccessExclusiveLock'
    AND pid = %s AND relation::regclass::text = ANY(%s)"""


@contextmanager
def locked_for_all(engine: Engine, sql: psycopg.Connection) -> Iterator[list[set[str]]]:
    """For each transaction, the existing tables that it locked even against readers."""
    there = [row[0] for row in sql.execute(TABLES)]
    seen: list[set[str]] = []

    def record_locks(connection: Any) -> None:
        pid = connection.connection.driver_connection.info.backend_pid
        seen.append({row[0] for row in sql.execute(EXCLUSIVE, [pid, there])})

    event.listen(engine, "commit", record_locks)
    yield seen
    event.remove(engine, "commit", record_locks)


@pytest.mark.parametrize("down", [False, True], ids=["up", "down"])
def test_no_transaction_of_a_migration_locks_two_tables_against_readers(
    engine: Engine, sql: psycopg.Connection, down: bool
) -> None:
    if not down:
        step(engine, REVISIONS[0])
    path = REVISIONS[-2::-1] if down else REVISIONS[1:]
    transactions_with_locks = 0
    for revision in path:
        with locked_for_all(engine, sql) as seen:
            step(engine, revision)
        stay = {row[0] for row in sql.execute(TABLES)}
        for locked in seen:
            assert len(locked & stay) <= 1, f"to {revision}: {locked & stay}"
            transactions_with_locks += bool(locked & stay)
    assert transactions_with_locks > 3


def test_searches_and_writes_go_on_while_all_migrations_run(
    app: App, engine: Engine, database_url: str, tmp_path: Path
) -> None:
    ingest(app, write_source(tmp_path / "shop", 120))
    step(engine, "0002")
    with under_load(database_url, 49) as tallies:
        migrate(engine)
        step(engine, "0002")
        migrate(engine)
        wait_until(
            lambda: all(tally.done > 20 or tally.failed for tally in tallies.values()), "no load"
        )
    assert [sorted(set(tally.failed)) for tally in tallies.values()] == [[], []]
    assert all(tally.done > 20 for tally in tallies.values())


def test_a_migration_without_its_lock_retries_and_does_not_block_searches(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """A search that waited for the migration, or it for the search, would wait for the report."""
    monkeypatch.setattr("app.operations.migrate.RETRY_PAUSE_S", 0.2)
    step(engine, REVISIONS[1])
    with psycopg.connect(database_url) as report:
        report.execute("SELECT count(*) FROM index_build")  # and leave the transaction open
        migrating = threading.Thread(target=migrate, args=[engine])
        migrating.start()
        wait_until(lambda: "more tries" in caplog.text, "the migration does not retry")
        with psycopg.connect(database_url) as search:
            search.execute("SET lock_timeout = '100s'")
            search.execute("SELECT count(*) FROM index_build")
        assert migrating.is_alive()
    migrating.join(300)
    versions = values(database_url, "SELECT version_num FROM alembic_version")
    assert versions == [SCHEMA_REVISION]


def test_a_migration_that_never_gets_its_lock_is_an_error(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.operations.migrate.MAX_TRIES", 1)
    step(engine, REVISIONS[1])
    with psycopg.connect(database_url) as report:
        report.execute("SELECT count(*) FROM index_build")
        with pytest.raises(LockHeld, match="holds a lock for too long"):
            migrate(engine)


# Writes of a migration


@pytest.mark.parametrize(("before", "after"), STEPS, ids=[after for _, after in STEPS])
def test_squawk_reports_no_unsafe_statement_in_a_migration(before: str, after: str) -> None:
    squawk = shutil.which("squawk", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert squawk, "squawk is missing here: make install"
    script = StringIO()
    config = Config(toml_file=str(REPO / "pyproject.toml"), output_buffer=script)
    command.upgrade(config, f"{before}:{after}", sql=True)
    assert "UPDATE alembic_version" in script.getvalue()
    done = subprocess.run(
        [squawk, "--pg-version", "18", "--reporter", "gcc",
         "--exclude", ",".join(DISABLED_RULES), "--stdin-filepath", f"{after}.sql"],
        input=script.getvalue(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")


def test_rows_with_future_stamps_are_restamped_in_batches(
    app: App, sql: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.operations.migrate.BATCH", 4)
    ingest(app, write_source(tmp_path / "shop", 10))
    for table, column in {"product": "sku", "product_picture": "uri", "embedding": "vec"}.items():
        sql.execute(f"ALTER TABLE {table} DISABLE TRIGGER {table}_stamp")
        sql.execute(f"UPDATE {table} SET {column} = {column}, changed_in = '99999999999'")
        sql.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_stamp")
    migrate(app.engine)
    for table in ("product", "product_picture", "embedding"):
        stamps = f"SELECT changed_in::text::bigint, count(*) FROM {table} GROUP BY 1 ORDER BY 1"
        batches = sql.execute(stamps).fetchall()
        assert [rows for _, rows in batches] == [4, 4, 2]
        assert batches[-1][0] < 99999999999


# Contents of the tables


def all_contents(url: str) -> dict[str, dict[str, list[str]]]:
    """For each table its columns, each with the values of all rows in key order."""
    contents: dict[str, dict[str, list[str]]] = {}
    with psycopg.connect(url) as connection:
        for (table,) in connection.execute(TABLES).fetchall():
            if table in ("alembic_version", "schema_serves"):
                continue
            cursor = connection.execute(f"SELECT * FROM {table} AS t ORDER BY t::text")
            names = [column.name for column in cursor.description or ()]
            rows = [[str(value) for value in row] for row in cursor.fetchall()]
            contents[table] = {name: [row[n] for row in rows] for n, name in enumerate(names)}
    return contents


def common(
    before: dict[str, dict[str, list[str]]], after: dict[str, dict[str, list[str]]]
) -> Iterator[tuple[str, list[str], list[str]]]:
    """The columns that exist before and after, with their values sorted."""
    for table in before.keys() & after.keys():
        for column in before[table].keys() & after[table].keys():
            if column != "changed_in":  # a new column starts with new values
                yield (
                    f"{table}.{column}",
                    sorted(before[table][column]),
                    sorted(after[table][column]),
                )


@pytest.fixture
def filled(app: App, sql: psycopg.Connection, tmp_path: Path) -> App:
    """A catalogue with a row in every table."""
    ingest(app, write_source(tmp_path / "shop", 13))
    app.catalog.delete(["P0012"])
    app.indexer.rebuild()
    app.search.search(Query(picture=photo(3)))
    app.sampler.close()
    sql.execute("INSERT INTO duplicate_verdict VALUES ('A', 'B', true, 'Ada')")
    sql.execute("INSERT INTO tuning VALUES (1, 100, 0.5)")
    sql.execute("INSERT INTO calibration (model_id, similar_distance) VALUES (1, 0.5)")
    sql.execute("INSERT INTO model_change (active_id, active_name) VALUES (1, 'colours')")
    other = sql.execute("SELECT register_model('other', '1', dim, 'b') FROM model").fetchone()
    sql.execute(
        "INSERT INTO embedding (model_id, picture_id, vec)"
        " SELECT %s, picture_id, vec FROM embedding", other,
    )  # fmt: skip
    sql.execute("INSERT INTO model_projection VALUES (%s, 'a', '1', NULL, 'b', '', '{}')", other)
    sql.execute("INSERT INTO ingest_reject (run_id, reason) SELECT id, 'no' FROM ingest_run")
    app.events.keep_photo("p", app.photos.add(photo(3)).preview, 1)
    app.events.store([EventRow("q", "click", "P0001")])
    app.events.record(RequestRow("q", "text", 5, 0, ["P0001"], [], "colours", "words"))
    app.events.close()
    app.api_keys.create("search")
    app.api_keys.shared_secret("test")
    return app


def test_the_filled_catalogue_has_a_row_in_every_old_table(filled: App, database_url: str) -> None:
    del filled
    contents = all_contents(database_url)
    assert [table for table, columns in contents.items() if not any(columns.values())] == []


def test_rows_survive_every_migration_down_and_up_again(
    filled: App, engine: Engine, database_url: str
) -> None:
    del filled
    compared = 0
    for revision in [*REVISIONS[-2::-1], *REVISIONS[1:]]:
        before = all_contents(database_url)
        step(engine, revision)
        for name, was, is_ in common(before, all_contents(database_url)):
            assert is_ == was, f"{name} at {revision}"
            compared += len(was)
    assert compared > 1000


# Code and database of different versions

NEXT_REVISION = """
ALTER TABLE {table} ADD COLUMN added_later text DEFAULT 'x';
CREATE INDEX {table}_added_later_idx ON {table} (added_later);
"""
"""A later migration that stays compatible with the code of this version."""


def migrate_to_the_next_revision(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for (table,) in connection.execute(TABLES).fetchall():
            if table != "alembic_version":
                connection.execute(NEXT_REVISION.format(table=table))
        connection.execute("UPDATE alembic_version SET version_num = '9999'")


def test_a_running_service_continues_when_the_database_is_migrated_to_a_later_revision(
    filled: App, database_url: str, tmp_path: Path
) -> None:
    query = Query(picture=photo(3), k=5)
    # Only the third search uses a single statement.
    before = [filled.search.search(query) for _ in range(3)][-1]
    migrate_to_the_next_revision(database_url)
    after = filled.search.search(query)
    assert (after.matches, after.plan.path) == (before.matches, "faiss")
    report = ingest(filled, write_source(tmp_path / "more", 14))
    assert report.added == 2
    assert filled.indexer.rebuild().state == "published"


def test_code_on_a_newer_compatible_database_works_and_reports_it(
    filled: App, settings: Settings, database_url: str
) -> None:
    migrate_to_the_next_revision(database_url)
    with App(settings, choose=choose_colours) as started:
        assert started.initialise().startswith("The model of this database is colours")
        assert len(started.search.search(Query(picture=photo(3), k=5)).matches) == 5
        report = status(started.engine, started.files, started.settings)
    (migration,) = [check for check in report.checks if check.name == "migration"]
    assert (report.healthy, migration.value) == (True, "9999")
    assert "still serves this version" in str(migration.advice)


def test_an_older_version_does_not_migrate_a_newer_database(
    engine: Engine, database_url: str, sql: psycopg.Connection
) -> None:
    migrate_to_the_next_revision(database_url)
    sql.execute("DROP SCHEMA analytics CASCADE")
    assert migrate(engine) == "9999"
    assert sql.execute("SELECT to_regnamespace('analytics')").fetchone() == (None,)


@pytest.mark.parametrize(
    "act",
    [lambda app: migrate(app.engine), lambda app: app.catalog.model()],
    ids=["migrate", "use"],
)
def test_an_older_version_on_an_incompatible_database_is_an_error(
    app: App, sql: psycopg.Connection, act: Callable[[App], object]
) -> None:
    sql.execute("UPDATE alembic_version SET version_num = '9999'")
    sql.execute("UPDATE schema_serves SET code_since = '9998'")
    with pytest.raises(SchemaMismatch, match=r"9999, newer than .*Update Lookalike"):
        act(app)


def test_the_newest_migration_is_compatible_with_this_version(database_url: str) -> None:
    (since,) = values(database_url, "SELECT code_since FROM schema_serves")
    assert since <= SCHEMA_REVISION
