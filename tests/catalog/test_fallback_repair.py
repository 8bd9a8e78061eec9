"""A missing, outdated or half-built index of pgvector is built by whichever process is next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from app.bootstrap import App
from app.catalog import fallback_index
from app.config import Settings
from app.db import locks
from app.db.queries import pgvector_index
from app.errors import LookalikeError
from app.operations.fallback_upkeep import FallbackUpkeep
from app.operations.integrity import CheckOptions, check
from app.operations.migrate import migrate
from support import servers
from support.colours import choose_colours
from support.fallback import ROWS, ask, healthy, index, insert_equal, names
from support.paths import REPO
from support.shop import add, numbered


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With few exact rows, so that searches use pgvector's index."""
    return settings.model_copy(update={"exact_rows": 20})


def test_an_index_that_another_process_works_on_is_left_to_it(
    full: App, sql: psycopg.Connection
) -> None:
    with (
        full.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        locks.pgvector_index(connection, 1),
    ):
        assert fallback_index.maintain(full.engine) == [] and names(sql) == []
        assert healthy(full) == (True, "being built")
    assert fallback_index.maintain(full.engine)


KILLED = """
import os, signal, sys
from app.bootstrap import App
from app.catalog import fallback_index
from app.config import Settings
from app.db.queries import pgvector_index
pgvector_index.MIN_ROWS = 10
pgvector_index.save_figures = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
fallback_index.maintain(App(Settings(database_url=sys.argv[1], home=sys.argv[2])).engine)
"""


def python(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join([str(REPO), str(REPO / "tests")])
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=os.environ | {"PYTHONPATH": paths}
    )


def maintained_by_the_loop(app: App) -> None:
    with FallbackUpkeep(app.engine, 0.05):
        servers.wait_until(lambda: index(app) is not None, "the loop did not build the index")


def test_the_next_process_finishes_what_a_killed_one_left(
    full: App, sql: psycopg.Connection
) -> None:
    killed = python(KILLED, str(full.settings.database_url), str(full.settings.home))
    assert killed.wait(300) == -signal.SIGKILL
    servers.wait_until(lambda: not healthy(full)[0], "the lock of the process is still held")
    assert names(sql) == ["embedding_m1_ivf1_idx"] and ask(full).plan.path == "exact"
    fallback_index.maintain(full.engine)
    assert ask(full).plan.path == "pgvector"


@pytest.mark.parametrize(
    "finish", [maintained_by_the_loop, lambda app: migrate(app.engine)], ids=["loop", "migrate"]
)
def test_a_missing_index_is_built_by_the_worker_and_a_migration(
    full: App, finish: Callable[[App], object]
) -> None:
    finish(full)
    assert ask(full).plan.path == "pgvector"


def test_a_missing_index_of_many_rows_is_found_and_repaired_by_check(
    app: App, sql: psycopg.Connection
) -> None:
    with app.engine.connect() as connection:
        missing = pgvector_index.MODELS_WITHOUT_INDEX
        insert_equal(sql, pgvector_index.MIN_ROWS - 1)
        assert connection.exec_driver_sql(missing).all() == []
        sql.execute("INSERT INTO picture (sha256, width, height, thumbnail)"
                    " VALUES (sha256('x'), 1, 1, '')")  # fmt: skip
        sql.execute("INSERT INTO embedding (model_id, picture_id, vec) SELECT 1, max(id),"
                    " ('[1' || repeat(',0', 48) || ']')::halfvec FROM picture")  # fmt: skip
        assert connection.exec_driver_sql(missing).scalars().all() == ["colours"]
    report = check(app.engine, app.files, app.limits, CheckOptions(repair=True))
    (finding,) = [each for each in report.findings if each.kind == "pgvector-index-missing"]
    assert finding.repaired == "pgvector's index was made of colours" and not finding.wrong
    assert healthy(app)[0]


def test_the_index_of_an_earlier_version_is_replaced(full: App, sql: psycopg.Connection) -> None:
    sql.execute("CREATE INDEX embedding_m1_vec_idx ON embedding_m1"
                " USING hnsw ((vec::halfvec(49)) halfvec_cosine_ops)")  # fmt: skip
    migrate(full.engine)
    assert names(sql) == ["embedding_m1_ivf1_idx"]


@pytest.fixture
def crashing() -> Iterator[Path]:
    with servers.own_server() as home:
        yield home


def test_an_index_build_interrupted_by_a_server_crash_is_repeated(
    crashing: Path, tmp_path: Path, few: None
) -> None:
    url = servers.start(crashing)
    settings = Settings(home=tmp_path, database_url=url, exact_rows=20)
    with App(settings, choose=choose_colours) as app:
        app.initialise()
        add(app, numbered(ROWS))
        with (
            closing(psycopg.connect(url, autocommit=True)) as sql,
            closing(psycopg.connect(url)) as old,
        ):
            old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            old.execute("SELECT 1")
            builder = python(KILLED, url, str(tmp_path))
            servers.wait_until(lambda: waits_for_old_snapshots(sql), "the index is not being built")
            servers.crash(crashing)
            builder.wait(300)
        servers.start(crashing)
        servers.wait_until(lambda: answers(app), "the server does not come back")
        assert ask(app).plan.path == "exact"
        assert [model.id for model in fallback_index.maintain(app.engine)] == [1]
        assert ask(app).plan.path == "pgvector"


def waits_for_old_snapshots(sql: psycopg.Connection) -> bool:
    """Whether the build waits for the older transaction: the index is built and not valid yet."""
    row = sql.execute(
        "SELECT EXISTS (SELECT FROM pg_stat_progress_create_index"
        " WHERE phase LIKE 'waiting for old snapshots')"
    ).fetchone()
    return bool(row and row[0])


def answers(app: App) -> bool:
    time.sleep(0.05)
    try:
        return index(app) is None
    except LookalikeError:
        return False
