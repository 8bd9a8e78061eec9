"""Migrations while the service runs: nobody waits long, nothing fails, nothing is lost."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from app.types import Query
from bench.harness.load_generator import under_load
from support.colours import choose_colours, photo
from support.goods import ingest, shop
from support.paths import REPO
from support.servers import until

SCRIPTS = ScriptDirectory.from_config(Config(toml_file=str(REPO / "pyproject.toml")))
REVISIONS = [script.revision for script in reversed(list(SCRIPTS.walk_revisions()))]
STEPS = list(itertools.pairwise(REVISIONS))

NOT_ASKED = {
    "require-statement-timeout": "an index of a large table takes as long as it takes, and whoever "
    "waits for a lock gives up by lock_timeout",
    "prefer-robust-stmts": "IF NOT EXISTS would keep the useless index that an interrupted try "
    "left: it is dropped first, and a test interrupts one",
    "prefer-bigint-over-int": "models and counts of pairs stay far below two thousand million",
}
"""Rules of squawk that are left out, and why."""


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(Settings(database_url=database_url))
    yield engine
    engine.dispose()


def step(engine: Engine, to: str) -> None:
    """Up or down to a revision, as alembic does it."""
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


# What a migration may lock

TABLES = """SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
    AND relkind IN ('r', 'p') AND NOT relispartition"""

EXCLUSIVE = """SELECT relation::regclass::text FROM pg_locks WHERE mode = 'AccessExclusiveLock'
    AND pid = %s AND relation::regclass::text = ANY(%s)"""


@contextmanager
def locked_for_all(engine: Engine, sql: psycopg.Connection) -> Iterator[list[set[str]]]:
    """The tables, of those that were there, that each transaction kept even readers from."""
    there = [row[0] for row in sql.execute(TABLES)]
    seen: list[set[str]] = []

    def look(connection: Any) -> None:
        pid = connection.connection.driver_connection.info.backend_pid
        seen.append({row[0] for row in sql.execute(EXCLUSIVE, [pid, there])})

    event.listen(engine, "commit", look)
    yield seen
    event.remove(engine, "commit", look)


@pytest.mark.parametrize("down", [False, True], ids=["up", "down"])
def test_no_transaction_of_a_migration_keeps_readers_from_two_tables_at_once(
    engine: Engine, sql: psycopg.Connection, down: bool
) -> None:
    if not down:
        step(engine, REVISIONS[0])
    path = REVISIONS[-2::-1] if down else REVISIONS[1:]
    looked = 0
    for revision in path:
        with locked_for_all(engine, sql) as seen:
            step(engine, revision)
        stay = {row[0] for row in sql.execute(TABLES)}
        for locked in seen:
            assert len(locked & stay) <= 1, f"to {revision}: {locked & stay}"
            looked += bool(locked & stay)
    assert looked > 3


def test_searches_and_writes_go_on_while_all_migrations_run(
    app: App, engine: Engine, database_url: str, tmp_path: Path
) -> None:
    ingest(app, shop(tmp_path / "shop", 120))
    step(engine, "0002")
    with under_load(database_url, 49) as tallies:
        migrate(engine)
        step(engine, "0002")
        migrate(engine)
        until(lambda: all(tally.done > 20 or tally.failed for tally in tallies.values()), "no load")
    assert [sorted(set(tally.failed)) for tally in tallies.values()] == [[], []]
    assert all(tally.done > 20 for tally in tallies.values())


def test_a_migration_that_cannot_get_its_lock_tries_again_and_lets_searches_pass(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.operations.migrate.RETRY_PAUSE_S", 0.2)
    step(engine, REVISIONS[1])
    with psycopg.connect(database_url) as report:
        report.execute("SELECT count(*) FROM index_build")  # and the transaction stays open
        migrating = threading.Thread(target=migrate, args=[engine])
        migrating.start()
        time.sleep(3)
        with psycopg.connect(database_url) as search:
            search.execute("SET lock_timeout = '2500ms'")
            search.execute("SELECT count(*) FROM index_build")
        assert migrating.is_alive()
    migrating.join(300)
    found = values(database_url, "SELECT version_num FROM alembic_version")
    assert found == [SCHEMA_REVISION]


def test_a_migration_that_never_gets_its_lock_says_so(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.operations.migrate.MAX_TRIES", 1)
    step(engine, REVISIONS[1])
    with psycopg.connect(database_url) as report:
        report.execute("SELECT count(*) FROM index_build")
        with pytest.raises(LockHeld, match="holds a lock for too long"):
            migrate(engine)


# What a migration may write


@pytest.mark.parametrize(("before", "after"), STEPS, ids=[after for _, after in STEPS])
def test_squawk_finds_nothing_in_what_a_migration_does(before: str, after: str) -> None:
    squawk = shutil.which("squawk", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert squawk, "squawk is missing here: make install"
    words = ["alembic", "upgrade", f"{before}:{after}", "--sql"]
    script = subprocess.run(
        [sys.executable, "-m", *words], cwd=REPO, capture_output=True, text=True, check=True
    ).stdout
    done = subprocess.run(
        [squawk, "--pg-version", "18", "--reporter", "gcc",
         "--exclude", ",".join(NOT_ASKED), "--stdin-filepath", f"{after}.sql"],
        input=script, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")


def test_rows_from_the_future_are_stamped_in_parts(
    app: App, sql: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.operations.migrate.BATCH", 4)
    ingest(app, shop(tmp_path / "shop", 10))
    for table, column in {"product": "sku", "product_picture": "uri", "embedding": "vec"}.items():
        sql.execute(f"ALTER TABLE {table} DISABLE TRIGGER {table}_stamp")
        sql.execute(f"UPDATE {table} SET {column} = {column}, changed_in = '99999999999'")
        sql.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_stamp")
    migrate(app.engine)
    for table in ("product", "product_picture", "embedding"):
        stamps = f"SELECT changed_in::text::bigint, count(*) FROM {table} GROUP BY 1 ORDER BY 1"
        found = sql.execute(stamps).fetchall()
        assert [rows for _, rows in found] == [4, 4, 2]
        assert found[-1][0] < 99999999999


# What is in the tables


def everything(url: str) -> dict[str, dict[str, list[str]]]:
    """Of every table its columns, each with the values of all rows by the order of the key."""
    found: dict[str, dict[str, list[str]]] = {}
    with psycopg.connect(url) as connection:
        for (table,) in connection.execute(TABLES).fetchall():
            if table in ("alembic_version", "schema_serves"):
                continue
            cursor = connection.execute(f"SELECT * FROM {table} AS t ORDER BY t::text")
            names = [column.name for column in cursor.description or ()]
            rows = [[str(value) for value in row] for row in cursor.fetchall()]
            found[table] = {name: [row[n] for row in rows] for n, name in enumerate(names)}
    return found


def common(
    before: dict[str, dict[str, list[str]]], after: dict[str, dict[str, list[str]]]
) -> Iterator[tuple[str, list[str], list[str]]]:
    """The columns that are there before and after, with their values sorted."""
    for table in before.keys() & after.keys():
        for column in before[table].keys() & after[table].keys():
            if column != "changed_in":  # a new one begins anew
                yield (
                    f"{table}.{column}",
                    sorted(before[table][column]),
                    sorted(after[table][column]),
                )


@pytest.fixture
def filled(app: App, sql: psycopg.Connection, tmp_path: Path) -> App:
    """A catalogue with a row in every table."""
    ingest(app, shop(tmp_path / "shop", 12))
    app.indexer.rebuild()
    app.search.search(Query(picture=photo(3)))
    app.sampler.close()
    sql.execute("INSERT INTO duplicate_verdict VALUES ('A', 'B', true, 'Ada')")
    sql.execute("INSERT INTO tuning VALUES (1, 100, 0.5)")
    sql.execute("INSERT INTO calibration (model_id, similar_distance) VALUES (1, 0.5)")
    sql.execute("INSERT INTO model_change (active_id, active_name) VALUES (1, 'colours')")
    sql.execute("INSERT INTO ingest_reject (run_id, reason) SELECT id, 'no' FROM ingest_run")
    return app


def test_the_filled_catalogue_has_a_row_in_every_old_table(filled: App, database_url: str) -> None:
    del filled
    found = everything(database_url)
    assert [table for table, columns in found.items() if not any(columns.values())] == []


def test_rows_survive_every_migration_down_and_up_again(
    filled: App, engine: Engine, database_url: str
) -> None:
    del filled
    compared = 0
    for revision in [*REVISIONS[-2::-1], *REVISIONS[1:]]:
        before = everything(database_url)
        step(engine, revision)
        for name, was, is_ in common(before, everything(database_url)):
            assert is_ == was, f"{name} at {revision}"
            compared += len(was)
    assert compared > 1000


# Code and database of two versions

TOMORROW = """
ALTER TABLE {table} ADD COLUMN added_later text DEFAULT 'x';
CREATE INDEX {table}_added_later_idx ON {table} (added_later);
"""
"""What a newer migration does that the code before can live with."""


def migrate_to_tomorrow(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for (table,) in connection.execute(TABLES).fetchall():
            if table != "alembic_version":
                connection.execute(TOMORROW.format(table=table))
        connection.execute("UPDATE alembic_version SET version_num = '9999'")


def test_a_service_goes_on_while_the_database_is_migrated_beyond_it(
    filled: App, database_url: str, tmp_path: Path
) -> None:
    query = Query(picture=photo(3), k=5)
    before = [filled.search.search(query) for _ in range(3)][-1]  # the last one in one statement
    migrate_to_tomorrow(database_url)
    after = filled.search.search(query)
    assert (after.matches, after.plan.path) == (before.matches, "faiss")
    report = ingest(filled, shop(tmp_path / "more", 14))
    assert report.added == 2
    assert filled.indexer.rebuild().state == "published"


def test_code_that_starts_on_a_newer_database_that_serves_it_works_and_says_so(
    filled: App, settings: Settings, database_url: str
) -> None:
    migrate_to_tomorrow(database_url)
    with App(settings, choose=choose_colours) as started:
        assert started.initialise().startswith("The model of this database is colours")
        assert len(started.search.search(Query(picture=photo(3), k=5)).matches) == 5
        found = status(started.engine, started.files, started.settings)
    (migration,) = [check for check in found.checks if check.name == "migration"]
    assert (found.healthy, migration.value) == (True, "9999")
    assert "still serves this version" in str(migration.advice)


def test_an_older_version_leaves_a_newer_database_as_it_is(
    engine: Engine, database_url: str, sql: psycopg.Connection
) -> None:
    migrate_to_tomorrow(database_url)
    sql.execute("DROP SCHEMA analytics CASCADE")
    assert migrate(engine) == "9999"
    assert sql.execute("SELECT to_regnamespace('analytics')").fetchone() == (None,)


@pytest.mark.parametrize(
    "act",
    [lambda app: migrate(app.engine), lambda app: app.catalog.model()],
    ids=["migrate", "use"],
)
def test_an_older_version_says_so_where_the_database_no_longer_serves_it(
    app: App, sql: psycopg.Connection, act: Callable[[App], object]
) -> None:
    sql.execute("UPDATE alembic_version SET version_num = '9999'")
    sql.execute("UPDATE schema_serves SET code_since = '9998'")
    with pytest.raises(SchemaMismatch, match=r"9999, newer than .*Update Lookalike"):
        act(app)


def test_the_newest_migration_serves_the_code_of_this_version(database_url: str) -> None:
    (since,) = values(database_url, "SELECT code_since FROM schema_serves")
    assert since <= SCHEMA_REVISION
