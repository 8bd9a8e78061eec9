"""The role `lookalike_analyst` on a real server: what it may do and what is refused."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.db.embedded import server as embedded_server
from app.db.locks import LockKey
from app.db.queries.analyst_sessions import ROLE
from app.errors import BuildRunning
from app.operations.migrate import migrate
from app.types import Query
from support.analysts import catalogue, login
from support.colours import choose_colours
from support.servers import own_server, wait_until
from support.shop import add, numbered


@pytest.fixture(scope="module")
def shop(server_home: Path, template: str) -> Iterator[App]:
    with catalogue(server_home, template) as app:
        yield app


@pytest.fixture(scope="module")
def url(shop: App) -> Iterator[str]:
    with login(shop) as url:
        yield url


@pytest.fixture
def analyst(url: str) -> Iterator[psycopg.Connection]:
    """An analyst who has lifted every limit that a session may lift."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute("SET statement_timeout = 0")
        yield connection


def owner(shop: App) -> psycopg.Connection:
    return psycopg.connect(shop.settings.database_url or "", autocommit=True)


def rows(connection: psycopg.Connection, sql: str, values: Any = None) -> list[Any]:
    return connection.execute(sql, values).fetchall()  # type: ignore[arg-type]


# What is allowed

READABLE = "products pictures embeddings coverage loads rejects index_builds freshness"


@pytest.mark.parametrize("view", [*READABLE.split(), "duplicate_groups", "similar_listings"])
def test_the_role_reads_every_view(analyst: psycopg.Connection, view: str) -> None:
    analyst.execute(f"SELECT * FROM analytics.{view}")


def test_the_role_calls_every_function_and_compares_vectors(analyst: psycopg.Connection) -> None:
    for call in (
        "similar_products('DEMO-0001', 3)", "search_products(analytics.centroid('lamp'), 3)",
        "near_duplicate_pairs(0.1)", "compare('DEMO-0001', 'DEMO-0002')", "outliers('lamp', 2)",
        "build_in_use()", "changes_since(1)",
    ):  # fmt: skip
        assert rows(analyst, f"SELECT * FROM analytics.{call}")
    [(distance,)] = rows(analyst, "SELECT max(embedding <=> embedding) FROM analytics.embeddings")
    assert distance < 1e-3


# What is refused

REFUSED = [
    *(f"SELECT * FROM {table}" for table in (
        "product", "picture", "product_picture", "embedding", "embedding_m1", "model",
        "index_build", "index_chunk", "query_sample", "duplicate_verdict", "ingest_run",
        "ingest_reject", "product_history", "picture_history", "embedding_history", "calibration",
        "tuning", "query_photo", "api_key", "api_secret", "alembic_version", "pg_authid",
        "pg_statistic",
        "pg_largeobject", "pg_user_mapping",
    )),
    "UPDATE analytics.rejects SET reason = ''", "DELETE FROM analytics.rejects",
    "INSERT INTO analytics.rejects (load, reason) VALUES (1, '')", "TRUNCATE product",
    "DO 'BEGIN LOCK TABLE product; END'",
    "DO 'BEGIN LOCK TABLE analytics.products IN ACCESS EXCLUSIVE MODE; END'",
    "SELECT * FROM analytics.products FOR UPDATE", "CLUSTER product USING product_pkey",
    "CREATE TABLE public.mine (x int)", "CREATE TABLE analytics.mine (x int)",
    "CREATE TEMPORARY TABLE mine (x int)", "CREATE SCHEMA mine", "CREATE TABLE mine (x int)",
    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE VIEW analytics.mine AS SELECT 1", "ALTER VIEW analytics.products RENAME TO gone",
    "DROP VIEW analytics.products", "COMMENT ON VIEW analytics.products IS ''",
    "CREATE EXTENSION pg_trgm", "CREATE PUBLICATION mine",
    "GRANT SELECT ON product TO PUBLIC; SELECT * FROM product", "CREATE ROLE mine",
    "ALTER ROLE postgres NOLOGIN", "SET ROLE postgres", "SET SESSION AUTHORIZATION postgres",
    "SELECT analytics._active_model()", "SELECT analytics._is_generic('')",
    "SELECT analytics._product_id('DEMO-0001')", "SELECT analytics._rounded('{1}')",
    "SELECT register_model('a', 'b', 3, 'c')",
    "COPY analytics.products TO '/tmp/mine'", "COPY analytics.products TO PROGRAM 'true'",
    "SELECT pg_read_file('PG_VERSION')", "SELECT pg_ls_dir('.')", "SELECT lo_import('PG_VERSION')",
    "SELECT pg_reload_conf()", "SELECT pg_switch_wal()", "ALTER SYSTEM SET work_mem = '1GB'",
    "SET session_replication_role = replica", "SET log_statement = 'all'", "LOAD '/tmp/mine'",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
]  # fmt: skip


@pytest.mark.parametrize("sql", REFUSED)
def test_all_other_statements_of_the_role_are_refused(
    analyst: psycopg.Connection, sql: str
) -> None:
    with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.FeatureNotSupported)):
        analyst.execute(sql)  # type: ignore[call-overload]


def test_the_role_has_no_privileges_outside_the_schema(shop: App) -> None:
    with owner(shop) as connection:
        outside = rows(
            connection,
            f"""
            SELECT c.oid::regclass::text FROM pg_class AS c
            JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname NOT IN ('analytics', 'pg_catalog', 'information_schema', 'pg_toast')
                AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
                AND (has_table_privilege('{ROLE}', c.oid,
                        'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER, MAINTAIN')
                    OR has_any_column_privilege('{ROLE}', c.oid, 'SELECT, INSERT, UPDATE'))""",
        )
        more = rows(
            connection,
            f"""
            SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = 'analytics'::regnamespace
                AND c.relkind IN ('v', 'r') AND has_table_privilege('{ROLE}', c.oid,
                    'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER, MAINTAIN')""",
        )
    assert (outside, more) == ([], [])


def test_security_definer_functions_have_a_fixed_search_path_and_no_public_access(
    shop: App,
) -> None:
    with owner(shop) as connection:
        functions = rows(
            connection,
            """SELECT proname, prosecdef, array_to_string(proconfig, ';'),
                has_function_privilege('public', oid, 'EXECUTE'),
                has_function_privilege('lookalike_analyst', oid, 'EXECUTE')
            FROM pg_proc WHERE pronamespace = 'analytics'::regnamespace""",
        )
    assert len(functions) > 10
    for name, definer, config, public_access, analysts in functions:
        path = re.search(r"search_path=([^;]*)", config or "")
        assert path and path[1].startswith("pg_catalog, ") and path[1].endswith(", pg_temp"), name
        assert not public_access, name
        assert analysts == (not name.startswith("_")) == definer, name


def test_temporary_tables_do_not_shadow_the_catalogue_in_functions(
    shop: App, analyst: psycopg.Connection
) -> None:
    """An administrator has granted the right to create temporary tables."""
    query = "SELECT sku, distance FROM analytics.similar_products('DEMO-0003', 5)"
    expected = rows(analyst, query)
    name = analyst.info.user
    with owner(shop) as connection:
        database = connection.info.dbname
        connection.execute(f"GRANT TEMPORARY ON DATABASE {database} TO {name}")
    try:
        analyst.execute("CREATE TEMPORARY TABLE product (id bigint, sku text)")
        analyst.execute("CREATE TEMPORARY TABLE model (id int, dim int, active boolean)")
        analyst.execute("CREATE FUNCTION pg_temp.encode(bytea, text) RETURNS text LANGUAGE sql"
                        " AS 'SELECT current_user::text'")  # fmt: skip
        analyst.execute("SET search_path = pg_temp, pg_catalog, public")
        assert rows(analyst, query) == expected
        assert rows(analyst, "SELECT count(*) FROM analytics.outliers(n => 5)") == [(5,)]
    finally:
        with owner(shop) as connection:
            connection.execute(f"REVOKE ALL ON DATABASE {database} FROM {name}")


# Locks of an analyst


def test_locks_of_an_analyst_delay_builds_and_corrupt_nothing(shop: App, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as analyst:
        for key in range(LockKey.INDEX_BUILD.value - 1, LockKey.INDEX_BUILD.value + 4):
            analyst.execute("SELECT pg_advisory_lock(%s)", [key])
        with pytest.raises(BuildRunning):
            shop.indexer.rebuild()
        assert len(shop.search.search(Query(sku="DEMO-0001", k=5)).matches) == 5
        # The server ends a session some time after its client has left.
        analyst.execute("SELECT pg_advisory_unlock_all()")
    assert shop.indexer.rebuild().state == "published"


# Creation of the role


@pytest.fixture(scope="module")
def bare_server() -> Iterator[Path]:
    with own_server() as home:
        yield home


def database(home: Path, name: str, owned_by: str) -> str:
    """The URL of a database with the extension, for its owner, which is not a superuser."""
    with psycopg.connect(embedded_server.url(home, "postgres"), autocommit=True) as server:
        server.execute(f"CREATE ROLE {owned_by} LOGIN")
        server.execute(f"CREATE DATABASE {name} OWNER {owned_by} TEMPLATE template0")
    with psycopg.connect(embedded_server.url(home, name), autocommit=True) as server:
        server.execute("CREATE EXTENSION vector")
    return embedded_server.url(home, name).replace("postgres@", f"{owned_by}@")


def migrated(home: Path, url: str) -> None:
    with App(Settings(home=home, database_url=url)) as app:
        migrate(app.engine)


def log_text(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


def server(home: Path, database: str = "postgres") -> psycopg.Connection:
    return psycopg.connect(embedded_server.url(home, database), autocommit=True)


@pytest.fixture
def without_role(bare_server: Path) -> None:
    """Drop the role from the cluster with all its privileges."""
    with server(bare_server) as connection:
        if rows(connection, f"SELECT to_regrole('{ROLE}')") == [(None,)]:
            return
        names = rows(connection, "SELECT datname FROM pg_database WHERE datallowconn")
    for (name,) in names:
        if name != "template0":
            with server(bare_server, name) as connection:
                connection.execute(f"DROP OWNED BY {ROLE}")
    with server(bare_server) as connection:
        connection.execute(f"DROP ROLE {ROLE}")


def test_a_migration_without_createrole_logs_the_commands_for_an_administrator(
    bare_server: Path, without_role: None, caplog: pytest.LogCaptureFixture
) -> None:
    url = database(bare_server, "hosted", "tenant")
    migrated(bare_server, url)
    assert f"CREATE ROLE {ROLE}" in log_text(caplog)
    with psycopg.connect(url) as tenant:
        assert rows(tenant, "SELECT count(*) FROM analytics.products") == [(0,)]
    with server(bare_server) as connection:
        connection.execute(f"CREATE ROLE {ROLE}")
    caplog.clear()
    migrated(bare_server, url)
    assert log_text(caplog) == ""
    with server(bare_server, "hosted") as connection:
        connection.execute(f"SET ROLE {ROLE}")
        assert rows(connection, "SELECT count(*) FROM analytics.products") == [(0,)]


def test_two_databases_of_a_cluster_may_be_migrated_at_once(
    bare_server: Path, without_role: None
) -> None:
    """The second waits for the role that the first has created and not yet committed."""
    urls = [database(bare_server, f"twin{n}", f"owner{n}") for n in (1, 2)]
    with server(bare_server) as connection:
        connection.execute("ALTER ROLE owner2 CREATEROLE")
    other = threading.Thread(target=migrated, args=(bare_server, urls[1]))
    with psycopg.connect(embedded_server.url(bare_server, "twin1")) as first:
        first.execute(f"CREATE ROLE {ROLE} NOLOGIN")
        other.start()
        with server(bare_server) as watch:
            wait_until(
                lambda: rows(watch, SECOND_MIGRATION_WAITS), "the second migration did not wait"
            )
    other.join(300)
    with psycopg.connect(urls[1]) as second:
        [(granted,)] = rows(
            second, f"SELECT has_table_privilege('{ROLE}', 'analytics.products', 'SELECT')"
        )
    assert granted


SECOND_MIGRATION_WAITS = (
    "SELECT FROM pg_stat_activity WHERE datname = 'twin2' AND wait_event_type = 'Lock'"
)


def test_changes_of_an_administrator_to_the_role_are_kept(
    bare_server: Path, without_role: None
) -> None:
    url = embedded_server.url(bare_server)
    migrated(bare_server, url)
    with server(bare_server) as connection:
        limits = "SELECT rolconnlimit, rolconfig FROM pg_roles WHERE rolname = %s"
        [(connections, settings)] = rows(connection, limits, [ROLE])
        assert connections == 10
        assert {"statement_timeout=60s", "default_transaction_read_only=on"} <= set(settings)
        connection.execute(f"ALTER ROLE {ROLE} LOGIN CONNECTION LIMIT 3")
        migrated(bare_server, url)
        assert rows(connection, limits, [ROLE])[0][0] == 3


def test_only_roles_that_load_keep_the_right_to_temporary_tables(
    bare_server: Path, without_role: None
) -> None:
    url = database(bare_server, "loaded", "keeper")
    migrated(bare_server, url)
    may = "SELECT has_database_privilege(%s, 'loaded', 'TEMPORARY')"
    with server(bare_server, "loaded") as connection:
        connection.execute("CREATE ROLE loader")
        connection.execute("GRANT INSERT ON product TO loader")
        connection.execute("GRANT TEMPORARY ON DATABASE loaded TO PUBLIC")
        connection.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        migrated(bare_server, url)
        assert rows(connection, may, ["loader"]) == [(True,)]
        assert rows(connection, may, ["public"]) == [(False,)]
        assert rows(connection, "SELECT has_schema_privilege('public', 'public', 'CREATE')") == [
            (False,)
        ]


def test_pgvector_may_be_in_a_separate_schema(bare_server: Path) -> None:
    with server(bare_server) as connection:
        connection.execute("CREATE DATABASE apart TEMPLATE template0")
        connection.execute("ALTER DATABASE apart SET search_path = public, extensions")
    with server(bare_server, "apart") as connection:
        connection.execute("CREATE SCHEMA extensions")
        connection.execute("CREATE EXTENSION vector SCHEMA extensions")
    settings = Settings(home=bare_server, database_url=embedded_server.url(bare_server, "apart"))
    with App(settings, choose=choose_colours) as app:
        app.initialise()
        add(app, numbered(5), brand="b")
        with login(app) as url, psycopg.connect(url) as analyst:
            for call in (
                "similar_products('P0001', 3)", "near_duplicate_pairs(2)", "outliers()",
                "search_products(analytics.centroid(brand => 'b'), 3)",
            ):  # fmt: skip
                assert rows(analyst, f"SELECT count(*) FROM analytics.{call}")


def test_a_view_of_a_user_on_our_views_survives_a_migration(shop: App) -> None:
    with owner(shop) as connection:
        connection.execute("CREATE VIEW public.mine AS SELECT sku FROM analytics.products")
        migrate(shop.engine)
        assert rows(connection, "SELECT count(*) FROM mine") == [(90,)]
        connection.execute("DROP VIEW mine")
