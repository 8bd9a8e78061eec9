"""The serving role can do all daily work of the service and cannot change the schema."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql as compose

from app.bootstrap import App
from app.cli import cli
from app.config import Settings
from app.db.embedded import binaries
from app.db.queries import analyst_sessions, models
from app.db.schema import SCHEMA_REVISION
from app.duplicates import report as duplicate_report
from app.duplicates import verdicts
from app.errors import BadInput, DatabaseUnsuitable
from app.evaluation import planner_tuning
from app.evaluation.calibration_run import calibrate
from app.evaluation.labelled_queries import LabelledQuery, evaluate
from app.evaluation.recall_audit import audit
from app.operations import picture_colours
from app.operations.backup import BackupFailed, backup
from app.operations.health import status
from app.operations.migrate import migrate
from app.operations.roles import create_roles, roles_script
from app.operations.search_events import EventRow, RequestRow
from app.operations.worker import Worker
from app.types import Query
from ingest.pipeline import IngestReport
from ingest.prune_limit import UNLIMITED
from support.colours import choose_colours, photo
from support.servers import TcpServer, password_server
from support.sources import ingest, write_source

DATABASE = """the "shop's" %s {name} :x $$"""
MIGRATOR = """mover'; DROP TABLE product; -- $$ "%I" """
SERVER = "sérver \\ {server} %(x)s"
PASSWORDS = {MIGRATOR: """m@/'"\\ %41 é""", SERVER: "s:p a%20ss"}
"""The roles and their passwords: special characters must be treated as part of the name."""


@pytest.fixture(scope="module")
def tcp() -> Iterator[TcpServer]:
    with password_server() as server, psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(
            compose.SQL("CREATE DATABASE {} TEMPLATE template0").format(
                compose.Identifier(DATABASE)
            )
        )
        yield server


@pytest.fixture(scope="module")
def opened(
    tcp: TcpServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., App]]:
    """Services connected as some role; closed at the end."""
    apps: list[App] = []

    def open_(user: str | None = None, **more: Any) -> App:
        url = tcp.url(DATABASE) if user is None else tcp.url(DATABASE, PASSWORDS[user], user)
        settings = Settings(home=tmp_path_factory.mktemp("home"), database_url=url, **more)
        apps.append(App(settings, choose=choose_colours))
        return apps[-1]

    yield open_
    for app in apps:
        app.close()


@pytest.fixture(scope="module")
def server(opened: Callable[..., App], tmp_path_factory: pytest.TempPathFactory) -> App:
    """The service as the serving role, in a filled database that another role migrated."""
    create_roles(opened().engine, MIGRATOR, SERVER, PASSWORDS)
    opened(MIGRATOR).initialise()
    app = opened(SERVER, worker_poll_s=0.2, worker_look_s=0.1)
    assert ingest(app, write_source(tmp_path_factory.mktemp("shop"), 300)).added == 300
    return app


def verdict_recorded(app: App) -> object:
    return verdicts.decide(app.engine, "P0001", "P0002", True, "Ada")


def evaluated(app: App) -> object:
    picture = app.settings.home / "0.png"
    picture.parent.mkdir(exist_ok=True)
    picture.write_bytes(photo(0))
    labelled = [LabelledQuery(1, "0.png", picture, "P0000")]
    return evaluate(app.engine, app.search, labelled, Query(), print)


def built_by_a_worker(app: App) -> object:
    stop = threading.Event()
    worker = Worker(app.engine, app.indexer, app.settings, stop)
    threading.Timer(1, stop.set).start()
    worker.run()
    (error,) = [each for each in worker.liveness.status().checks if each.name == "last_error"]
    return error.value is None


def samples_stored(app: App) -> int:
    app.search.search(Query(picture=photo(7)))
    app.sampler.close()
    with app.engine.connect() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM query_sample").scalar_one())


def events_stored(app: App) -> bool:
    app.events.record(RequestRow("q", "sku", 1, 0, ["P0001"], [], "colours", "exact"))
    app.events.store([EventRow("q", "click", "P0001")])  # creates the partitions of today
    app.events.close()
    with app.engine.connect() as connection:
        clicks = connection.exec_driver_sql("SELECT count(*) FROM search_event").scalar_one()
    return clicks == 1 and app.events.clean_up().dropped == 0


def colours_computed(app: App) -> bool:
    with app.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM picture_colours WHERE picture_id < 4")
    return picture_colours.fill(app.engine) == 3


DAILY_WORK = {
    "build": lambda app: app.indexer.rebuild().state == "published",
    "search": lambda app: app.search.search(Query(picture=photo(3))).plan.path == "faiss",
    "search again": lambda app: app.search.search(Query(picture=photo(4))).plan.path == "faiss",
    "keep samples": samples_stored,
    "audit": lambda app: audit(app.engine, app.files, app.settings, 5),
    "tune": lambda app: planner_tuning.tune(app.engine, app.files, app.settings),
    "calibrate": lambda app: calibrate(app.engine, app.encoder),
    "evaluate": evaluated,
    "decide": verdict_recorded,
    "list duplicates": lambda app: duplicate_report.duplicate_groups(app.engine, 0.9) is not None,
    "delete": lambda app: app.catalog.delete(["P0299"]) == 1,
    "undo": lambda app: app.catalog.undo(app.catalog.undoable_runs(1)[0].id).restored == 1,
    "store events": events_stored,
    "compute colours": colours_computed,
    "work": built_by_a_worker,
    "report status": lambda app: status(app.engine, app.files, app.settings).healthy,
}


def test_the_serving_role_can_do_all_daily_work_and_a_load_analyses_what_it_fills(
    server: App, tmp_path: Path
) -> None:
    """The order matters: each step uses the results of the steps before."""
    for name, step in DAILY_WORK.items():
        assert step(server), name
    with server.engine.begin() as connection:  # a table that is large enough to be analysed
        connection.exec_driver_sql(
            "INSERT INTO ingest_reject (run_id, reason)"
            " SELECT min(id), repeat('x', 900) FROM ingest_run, generate_series(1, 2000)"
            " GROUP BY generate_series"
        )
        sizes = "SELECT reltuples FROM pg_class WHERE relname = 'ingest_reject'"
        assert connection.exec_driver_sql(sizes).scalar_one() < 0
    source = write_source(tmp_path, 250)
    report: IngestReport = ingest(server, source, prune=True, prune_limit=UNLIMITED)
    assert (report.unchanged, report.deleted) == (250, 50)
    with server.engine.begin() as connection:
        assert connection.exec_driver_sql(sizes).scalar_one() == 2000


def test_a_backup_by_the_serving_role_is_an_error_that_names_the_right_role(
    server: App, tmp_path: Path
) -> None:
    with pytest.raises(BackupFailed, match=r"privilege.*\. Run it as the role that owns"):
        backup(server.engine, tmp_path / "b")
    assert not list(tmp_path.iterdir())


def registered(app: App) -> None:
    with app.engine.begin() as connection:
        models.register(connection, "other", "1", 8, "other")


def run_sql(statement: str) -> Callable[[App], None]:
    def run(app: App) -> None:
        with app.engine.begin() as connection:
            connection.exec_driver_sql(statement)

    return run


FORBIDDEN = [
    "CREATE TABLE mine (n int)",
    "CREATE SCHEMA mine",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "ALTER TABLE product ADD COLUMN mine int",
    "ALTER TABLE embedding DISABLE TRIGGER embedding_stamp",
    "ALTER TABLE embedding_m1 ALTER COLUMN vec SET STORAGE EXTERNAL",
    "CREATE INDEX mine ON product (title)",
    "DROP INDEX product_brand_idx",
    "DROP TABLE query_sample",
    "TRUNCATE query_sample",
    "CREATE OR REPLACE FUNCTION stamp_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'",
    "CREATE OR REPLACE VIEW analytics.products AS SELECT 1 AS one",
    "UPDATE alembic_version SET version_num = '0001'",
    "DELETE FROM schema_serves",
    "ALTER ROLE CURRENT_USER SUPERUSER",
    "COPY product TO PROGRAM 'cat'",
]


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_the_serving_role_is_refused(server: App, statement: str) -> None:
    with pytest.raises(DatabaseUnsuitable, match=r"lacks a right: .*lookalike db roles"):
        run_sql(statement)(server)


@pytest.mark.parametrize(
    "act", [registered, lambda app: migrate(app.engine)], ids=["add a model", "migrate"]
)
def test_migrator_commands_are_refused_to_the_serving_role(
    server: App, act: Callable[[App], object]
) -> None:
    with pytest.raises(DatabaseUnsuitable, match="Use a role that has it"):
        act(server)


def test_the_serving_role_searches_a_fitted_model_and_is_refused_a_fit_before_it_begins(
    server: App, opened: Callable[..., App]
) -> None:
    with pytest.raises(DatabaseUnsuitable, match="Only the role that migrates may add a model"):
        server.lifecycle.check_new_fit("our-photos")
    migrator = opened(MIGRATOR)
    migrator.lifecycle.check_new_fit("our-photos")
    base = server.lifecycle.active()
    fitted = migrator.lifecycle.add_fitted(
        "our-photos", base, np.eye(base.dim, dtype=np.float32), {}
    )
    assert server.encoders.for_model(fitted.id).fingerprint == fitted.fingerprint
    migrator.lifecycle.drop("our-photos")


def test_only_the_migrator_drops_a_model_and_a_refused_drop_changes_nothing(
    server: App, opened: Callable[..., App]
) -> None:
    migrator = opened(MIGRATOR)
    migrator.lifecycle.add("another")
    with pytest.raises(DatabaseUnsuitable, match=r"role that migrates.*Nothing was changed"):
        server.lifecycle.drop("another")
    maintained = {each.model.name: each.maintained for each in server.lifecycle.models()}
    assert maintained["another"]
    migrator.lifecycle.drop("another")
    assert server.search.search(Query(picture=photo(3))).matches


def test_the_migrator_migrates_again_and_owns_everything(
    server: App, opened: Callable[..., App]
) -> None:
    assert migrate(opened(MIGRATOR).engine) == SCHEMA_REVISION
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
    with server.engine.connect() as connection:
        assert connection.exec_driver_sql(owners).scalars().all() == [MIGRATOR]


def test_the_serving_role_may_use_a_table_of_a_later_migration(
    server: App, opened: Callable[..., App]
) -> None:
    later = "CREATE TABLE later (id int GENERATED ALWAYS AS IDENTITY, n int)"
    run_sql(later)(opened(MIGRATOR))
    run_sql("INSERT INTO later (n) VALUES (1)")(server)
    run_sql("DELETE FROM later")(server)
    run_sql("DROP TABLE later")(opened(MIGRATOR))


def test_an_analyst_reads_and_the_worker_ends_long_statements(
    server: App, opened: Callable[..., App], tcp: TcpServer
) -> None:
    run_sql("CREATE ROLE ada LOGIN PASSWORD 'a' IN ROLE lookalike_analyst")(opened())
    with closing(psycopg.connect(tcp.url(DATABASE, "a", "ada"), autocommit=True)) as ada:
        assert ada.execute("SELECT count(*) > 0 FROM analytics.products").fetchone() == (True,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            ada.execute("SELECT count(*) FROM product")
        with server.engine.connect() as connection:
            ada.execute("BEGIN")
            assert analyst_sessions.uncontrolled_users(connection) == []
            assert [each.user for each in analyst_sessions.end_overdue(connection, 0.0)] == ["ada"]


def test_a_database_of_a_single_role_can_be_split_between_roles_later(
    tcp: TcpServer, tmp_path: Path
) -> None:
    with psycopg.connect(tcp.url(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE former TEMPLATE template0")
    with App(Settings(home=tmp_path, database_url=tcp.url("former")), choose=choose_colours) as app:
        app.initialise()
        create_roles(app.engine, "former migrator", "former server", {"former migrator": "m"})
    url = tcp.url("former", "m", "former migrator")
    with App(Settings(home=tmp_path, database_url=url), choose=choose_colours) as app:
        assert migrate(app.engine) == SCHEMA_REVISION
        registered(app)
        run_sql("ALTER TABLE product ADD COLUMN later text")(app)


def test_a_dba_without_superuser_creates_the_roles_and_learns_the_remaining_steps(
    tcp: TcpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As on managed hosts without superuser access, where the extension is already installed."""
    with psycopg.connect(tcp.url(), autocommit=True) as admin:
        admin.execute("CREATE ROLE dba LOGIN CREATEROLE CREATEDB PASSWORD 'd'")
    with psycopg.connect(tcp.url("postgres", "d", "dba"), autocommit=True) as dba:
        dba.execute("CREATE DATABASE hosted TEMPLATE template0")
    with psycopg.connect(tcp.url("hosted"), autocommit=True) as admin:
        admin.execute("CREATE EXTENSION vector")
    words = {"hosted migrator": "m", "hosted server": "s"}
    settings = Settings(home=tmp_path, database_url=tcp.url("hosted", "d", "dba"))
    for _ in range(2):
        with App(settings) as app:
            create_roles(app.engine, "hosted migrator", "hosted server", words)
    assert 'pg_signal_backend TO "hosted server"' in caplog.text
    for user, does in (
        ("hosted migrator", lambda app: app.initialise()),
        ("hosted server", lambda app: ingest(app, write_source(tmp_path / "shop", 3)).added == 3),
    ):
        url = tcp.url("hosted", words[user], user)
        with App(Settings(home=tmp_path, database_url=url), choose=choose_colours) as app:
            assert does(app)


def test_the_printed_script_creates_the_same_roles(tcp: TcpServer) -> None:
    with psycopg.connect(tcp.url(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE printed TEMPLATE template0")
    psql = [binaries.binary("psql"), "-Xq", "-v", "ON_ERROR_STOP=1", tcp.url("printed")]
    script = roles_script("one'$$", 'two"')
    done = subprocess.run(psql, input=script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with psycopg.connect(tcp.url("printed"), autocommit=True) as connection:
        may = "SELECT has_schema_privilege(%s, 'public', 'CREATE')"
        assert connection.execute(may, ["one'$$"]).fetchone() == (True,)
        assert connection.execute(may, ['two"']).fetchone() == (False,)


@pytest.mark.parametrize("name", ["", "a" * 64, "é" * 32, "a\0b"])
def test_a_role_name_that_postgresql_would_truncate_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="1 to 63 bytes"):
        roles_script(name, "server")


def test_the_same_role_for_migrating_and_serving_is_refused() -> None:
    with pytest.raises(BadInput, match="two names"):
        roles_script("same", "same")


def test_a_role_name_reserved_by_postgresql_is_refused(opened: Callable[..., App]) -> None:
    with pytest.raises(BadInput, match="does not take this name"):
        create_roles(opened().engine, "pg_mine", "other", {})


def test_a_user_without_createrole_gets_an_error(server: App) -> None:
    with pytest.raises(DatabaseUnsuitable, match="lacks a right"):
        create_roles(server.engine, "third", "fourth", {})


def test_passwords_of_the_roles_are_read_from_files(
    tcp: TcpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, password in (("MIGRATOR_PASSWORD", "m@:/"), ("SERVER_PASSWORD", "s'%41")):
        (tmp_path / name).write_text(f"{password}\n")
        monkeypatch.setenv(f"{name}_FILE", str(tmp_path / name))
    monkeypatch.setenv("LOOKALIKE_DATABASE_URL", tcp.url("postgres"))
    arguments = ["db", "roles", "--migrator", "filed_migrator", "--server", "filed", "--apply"]
    cli.main(arguments, standalone_mode=False)
    psycopg.connect(tcp.url("postgres", "m@:/", "filed_migrator")).close()
    psycopg.connect(tcp.url("postgres", "s'%41", "filed")).close()


def test_the_server_never_receives_a_plain_password(
    tcp: TcpServer, opened: Callable[..., App]
) -> None:
    with psycopg.connect(tcp.url(), autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET log_statement = 'all'")
        admin.execute("SELECT pg_reload_conf()")
        create_roles(opened().engine, "quiet migrator", "quiet server", {"quiet server": "c4nary"})
        log = admin.execute("SELECT pg_read_file('../log')").fetchone()
        admin.execute("ALTER SYSTEM RESET log_statement")
        admin.execute("SELECT pg_reload_conf()")
    assert log is not None
    assert ("quiet server" in log[0], "c4nary" in log[0]) == (True, False)
    psycopg.connect(tcp.url("postgres", "c4nary", "quiet server")).close()
