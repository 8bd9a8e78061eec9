"""The horizon where a prepared transaction commits, or replication applies rows, after a build."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy.engine import make_url

from app.bootstrap import App
from app.config import Settings
from app.db.embedded import server as embedded_server
from conftest import HASTY
from support.colours import choose_colours
from support.judged_searches import PRODUCTS, QUERIES, search, search_all, turn
from support.shop import add, numbered

LOGICAL = {"wal_level": "logical", "max_prepared_transactions": "10"}


@pytest.fixture(scope="module")
def logical_home() -> Iterator[Path]:
    """The home of a server with logical replication and prepared transactions."""
    home = Path(tempfile.mkdtemp(prefix="lookalike-logical-"))
    embedded_server.start(home, HASTY | LOGICAL)
    yield home
    embedded_server.stop(home)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def logical_url(logical_home: Path) -> Callable[[], str]:
    """Creates migrated databases on that server."""

    def make() -> str:
        name = f"test_{uuid4().hex[:12]}"
        server = embedded_server.url(logical_home, "postgres")
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        url = embedded_server.url(logical_home, name)
        with App(Settings(home=logical_home, database_url=url), choose=choose_colours) as app:
            app.initialise()
        return url

    return make


def opened(url: str, folder: Path) -> App:
    return App(Settings(home=folder, database_url=url), choose=choose_colours)


def test_a_prepared_transaction_that_commits_after_the_build_is_found(
    logical_url: Callable[[], str], tmp_path: Path
) -> None:
    url = logical_url()
    with opened(url, tmp_path) as app, psycopg.connect(url, autocommit=True) as sql:
        add(app, numbered(PRODUCTS))
        sql.execute("BEGIN")
        turn(app, sql, (7, QUERIES[0]))
        sql.execute("PREPARE TRANSACTION 'later'")
        add(app, numbered(1, first=PRODUCTS))
        app.indexer.rebuild()
        assert search_all(app).delta_rows == 0
        sql.execute("COMMIT PREPARED 'later'")
        assert search_all(app).delta_rows == 1
        assert search(app, QUERIES[0]).candidates.hits[0].distance < 1e-6


TABLES = "product, picture, product_picture, embedding"


def subscribe(publisher: str, subscriber: str) -> str:
    """Replicate one database to another on the same server; returns the subscription's name."""
    name = f"follow_{uuid4().hex[:8]}"
    with psycopg.connect(publisher, autocommit=True) as connection:
        connection.execute(f"CREATE PUBLICATION {name} FOR TABLE {TABLES}")
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [name])
    parts = make_url(publisher)
    source = f"host={parts.query['host']} port={parts.query['port']} dbname={parts.database}"
    with psycopg.connect(subscriber, autocommit=True) as connection:
        connection.execute(
            f"CREATE SUBSCRIPTION {name} CONNECTION '{source} user=postgres' PUBLICATION {name}"
            f" WITH (create_slot = false, slot_name = '{name}', copy_data = false)"
        )
    return name


def wait_for(sql: psycopg.Connection, condition: str) -> None:
    deadline = time.monotonic() + 300
    while sql.execute(condition).fetchone() != (True,):
        assert time.monotonic() < deadline, f"never came true: {condition}"
        time.sleep(0.05)


def test_rows_that_replication_applies_are_found_at_once(
    logical_url: Callable[[], str], tmp_path: Path
) -> None:
    """Their stamps come from the publisher and are older than the subscriber's build."""
    from_url, to_url = logical_url(), logical_url()
    name = subscribe(from_url, to_url)
    with (
        opened(from_url, tmp_path / "from") as source,
        opened(to_url, tmp_path / "to") as target,
        psycopg.connect(from_url, autocommit=True) as there,
        psycopg.connect(to_url, autocommit=True) as here,
    ):
        add(source, numbered(PRODUCTS))
        wait_for(here, f"SELECT count(*) = {PRODUCTS} FROM embedding")
        here.execute(f"ALTER SUBSCRIPTION {name} DISABLE")
        turn(source, there, (7, QUERIES[0]))
        add(source, {"NEW": [QUERIES[1]]})
        source.catalog.delete(["P0003"])
        target.indexer.rebuild()
        here.execute(f"ALTER SUBSCRIPTION {name} ENABLE")
        wait_for(here, "SELECT EXISTS (SELECT FROM product WHERE sku = 'NEW')")
        wait_for(here, "SELECT NOT EXISTS (SELECT FROM product WHERE sku = 'P0003')")
        answer = search_all(target)
        assert (answer.path, answer.delta_rows) == ("faiss", 2)
        assert search(target, QUERIES[0]).candidates.hits[0].distance < 1e-6
        assert search(target, QUERIES[1]).candidates.hits[0].distance < 1e-6
        here.execute(f"DROP SUBSCRIPTION {name}")
