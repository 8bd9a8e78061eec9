"""A restore gives the same catalogue, searches and id sequence, also on another server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.db import client_tools
from app.db.engine import make_engine
from app.db.queries import pgvector_index
from app.db.schema import SCHEMA_REVISION
from app.duplicates.verdicts import decide
from app.errors import DatabaseUnsuitable
from app.operations.backup import DUMP, backup
from app.operations.restore import restore
from app.types import Query
from support import servers
from support.backups import FILLED, ask, refused, tables
from support.colours import choose_colours, photo
from support.shop import add, numbered

pytestmark = pytest.mark.xdist_group("backup")  # the backup is made once


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
    new_database: Callable[[str | None], str], elsewhere: App, tmp_path: Path
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
