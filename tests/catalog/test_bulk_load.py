"""Bulk loads that drop pgvector's HNSW index: answers stay correct and the index is rebuilt."""

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
from app.catalog import bulk_load
from app.config import Settings
from app.db.queries import hnsw_index, models
from app.errors import BadSource, LookalikeError
from app.images.decoding import decode
from app.models.backfill import embed
from app.operations.health import status
from app.operations.hnsw_repair import HnswRepairLoop
from app.operations.integrity import CheckOptions, check
from app.operations.migrate import migrate
from app.search.filters import parse
from app.types import ProgressCallback, Query, SearchResult
from ingest.loss_limit import count_losses
from ingest.sources import read
from support import servers
from support.colours import ColourEncoder, choose_colours, photo
from support.exact import assert_exact
from support.paths import REPO
from support.shop import add, numbered
from support.sources import ingest, write_csv, write_source

ROWS = 60


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With few exact rows, so that searches use pgvector's index."""
    return settings.model_copy(update={"exact_rows": 20})


@pytest.fixture
def full(app: App, monkeypatch: pytest.MonkeyPatch) -> App:
    """Sixty products without a build; loads of ten rows count as large."""
    monkeypatch.setattr(bulk_load, "MIN_ROWS", 10)
    monkeypatch.setattr(bulk_load, "PAUSE_S", 0.01)
    add(app, numbered(ROWS), colour="red")
    return app


def loading(app: App, added: int = 1000, notify: ProgressCallback = print) -> object:
    return bulk_load.bulk(app.engine, [app.catalog.model()], added, notify)


def indexed(app: App) -> bool:
    with app.engine.connect() as connection:
        return hnsw_index.is_usable(connection, app.catalog.model().id)


def ask(app: App, *filters: str) -> SearchResult:
    return app.search.search(Query(picture=photo(1000), filters=parse(filters)))


def healthy(app: App) -> tuple[bool, object]:
    """The status check of pgvector's index: ok and value."""
    checks = status(app.engine, app.files, app.settings).checks
    (index_check,) = [each for each in checks if each.name == "pgvector_index"]
    return index_check.ok, index_check.value


# When dropping the index is worth it


@pytest.mark.parametrize(
    ("rows", "added", "worth"),
    [
        (0, 4999, False),
        (0, 5000, True),
        (100_000, 0, False),
        (100_000, 10_000, False),
        (100_000, 100_000, True),
        (1_000_001, 10_000_000, False),  # exact answers would be too slow during the load
    ],
)
def test_many_new_rows_relative_to_the_stored_rows_are_worth_a_rebuild(
    rows: int, added: int, worth: bool
) -> None:
    assert bulk_load.is_rebuild_faster(rows, added, 10**9) is worth


def test_an_index_larger_than_memory_is_not_rebuilt() -> None:
    assert not bulk_load.is_rebuild_faster(300_000, 300_000, 200_000)


# Answers during a load


def test_without_the_index_answers_are_exact_and_give_the_reason(
    full: App, sql: psycopg.Connection
) -> None:
    assert ask(full).plan.path == "pgvector-hnsw"
    sql.execute("INSERT INTO tuning (model_id, exact_pictures, deep_share) VALUES (1, 5, 0.5)")
    with loading(full):
        result = ask(full)
        assert result.plan.path == "exact"
        assert "no index has been built yet; pgvector's index is missing" in result.plan.reason
        assert_exact(full, result, list(range(ROWS)), 1000, 10)
        narrowed = ask(full, "colour=red")
        assert narrowed.plan.path == "exact" and "is missing" in narrowed.plan.reason
        assert_exact(full, narrowed, list(range(ROWS)), 1000, 10)
        assert healthy(full) == (True, "dropped by a running load, or being built")
        assert check(full.engine, full.files, full.limits).findings == ()
    assert indexed(full) and healthy(full) == (True, "valid")
    assert ask(full).plan.path == ask(full, "colour=red").plan.path == "pgvector-hnsw"


def test_an_invalid_index_is_not_used(full: App, sql: psycopg.Connection) -> None:
    invalidate_index(sql)
    result = ask(full)
    assert result.plan.path == "exact"
    assert_exact(full, result, list(range(ROWS)), 1000, 10)


def invalidate_index(sql: psycopg.Connection) -> None:
    """The state that a failed CREATE INDEX CONCURRENTLY leaves."""
    sql.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'embedding_m1_vec_idx'::regclass"
    )


def test_pairs_are_refused_for_a_large_table_without_an_index(
    full: App, sql: psycopg.Connection
) -> None:
    """Also for tables that were never analysed, as after a first load."""
    pairs = "SELECT count(*) FROM analytics.near_duplicate_pairs(0.01)"
    with loading(full):
        assert sql.execute(pairs).fetchone()
        sql.execute(
            "WITH created AS (INSERT INTO picture (sha256, width, height, thumbnail)"
            " SELECT sha256(n::text::bytea), 1, 1, '' FROM generate_series(1, 20001) AS n"
            " RETURNING id) INSERT INTO embedding (model_id, picture_id, vec)"
            " SELECT 1, id, ('[1' || repeat(',0', 48) || ']')::halfvec FROM created"
        )
        sql.execute("UPDATE pg_class SET reltuples = -1 WHERE relname = 'embedding_m1'")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="is missing"):
            sql.execute(pairs)
        sql.execute("DELETE FROM picture WHERE thumbnail = ''")
    assert sql.execute(pairs).fetchone()


# Loads


def test_an_ingest_that_adds_many_rows_rebuilds_the_index(full: App, tmp_path: Path) -> None:
    messages: list[str] = []
    report = ingest(full, write_source(tmp_path / "in", 3 * ROWS), notify=messages.append)
    assert report.added == 2 * ROWS and indexed(full)
    assert "dropped until 120 pictures are loaded" in messages[0] and "Building" in messages[1]
    assert len(messages) == 2


def test_an_ingest_that_adds_few_rows_keeps_the_index(full: App, tmp_path: Path) -> None:
    messages: list[str] = []
    ingest(full, write_source(tmp_path / "in", ROWS + 9), notify=messages.append)
    assert messages == [] and indexed(full)


def test_a_model_without_embeddings_gets_its_index_after_the_load(
    full: App, tmp_path: Path
) -> None:
    with full.engine.begin() as connection:
        other = models.register(connection, "other", "1", 49, "other")
        models.maintain(connection, other.id, None)
    seen: list[bool] = []

    def find(_sha256: bytes, places: object) -> object:
        with full.engine.connect() as connection:
            seen.append(hnsw_index.is_usable(connection, other.id))
        return decode(photo(len(seen)))

    done = embed(full.engine, other, ColourEncoder(), find)  # type: ignore[arg-type]
    assert (done.embedded, done.left) == (ROWS, 0) and seen == [False] * ROWS
    with full.engine.connect() as connection:
        assert (
            hnsw_index.is_usable(connection, other.id)
            and hnsw_index.models_without_index(connection) == []
        )


def test_only_pictures_of_new_products_are_counted(full: App, tmp_path: Path) -> None:
    rows = [{"sku": "P0001", "images": "a.png"}, {"sku": "NEW", "images": "b.png|c.png"},
            {"sku": "BARE", "images": ""}, {"sku": "", "images": "d.png"}]  # fmt: skip
    source = write_csv(tmp_path / "in.csv", rows)
    assert count_losses(full.engine, read(source)).new_pictures == 2


def test_a_failed_load_rebuilds_the_index(full: App) -> None:
    with pytest.raises(BadSource), loading(full):  # type: ignore[attr-defined]
        raise BadSource("no more")
    assert indexed(full)


def test_the_last_of_two_concurrent_loads_rebuilds_the_index(full: App) -> None:
    messages: list[str] = []
    with loading(full):
        with loading(full, notify=messages.append):
            assert bulk_load.build_missing(full.engine) == []
        assert not indexed(full) and messages == []
    assert indexed(full)


def test_two_loads_that_start_at_the_same_time_both_run(
    full: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has seen the index before the other dropped it."""
    monkeypatch.setattr(hnsw_index, "is_usable", lambda *_: True)
    with loading(full), loading(full):
        monkeypatch.undo()
        assert not indexed(full)
    assert indexed(full)


def test_a_long_reader_of_the_table_prevents_dropping_the_index(
    full: App, sql: psycopg.Connection
) -> None:
    """Like a backup. The load does not wait for the reader and leaves the index complete."""
    with sql.transaction():
        sql.execute("LOCK TABLE embedding IN ACCESS SHARE MODE")
        with loading(full):
            assert indexed(full)
            add(full, numbered(5, first=ROWS))
    assert ask(full).plan.path == "pgvector-hnsw"


def test_a_role_that_may_not_drop_the_index_loads_with_it(
    full: App, sql: psycopg.Connection, settings: Settings
) -> None:
    sql.execute("CREATE ROLE plain_loader; GRANT USAGE ON SCHEMA public TO plain_loader")
    sql.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public"
                " TO plain_loader")  # fmt: skip
    try:
        url = f"{settings.database_url}&options=-c%20role%3Dplain_loader"
        plain = settings.model_copy(update={"database_url": url})
        with App(plain, choose=choose_colours) as app:
            with loading(app):
                assert indexed(app)
                add(app, numbered(5, first=ROWS))
            sql.execute("DROP INDEX embedding_m1_vec_idx")
            with loading(app):
                add(app, numbered(5, first=ROWS + 5))
            assert bulk_load.build_missing(app.engine) == []
            assert healthy(app)[0] is False
    finally:
        sql.execute("DROP OWNED BY plain_loader; DROP ROLE plain_loader")


# Interrupted loads

KILLED_LOAD = """
import os, signal, sys
from app.catalog import bulk_load
from app.bootstrap import App
from app.config import Settings
from support.colours import choose_colours
from support.shop import add, numbered
bulk_load.MIN_ROWS = 10
app = App(Settings(database_url=sys.argv[1], home=sys.argv[2]), choose=choose_colours)
with bulk_load.bulk(app.engine, [app.catalog.model()], 1000):
    add(app, numbered(20, first=60))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(app: App) -> None:
    """Kill a process during a load, and wait until its session has ended."""
    command = [
        sys.executable,
        "-c",
        KILLED_LOAD,
        str(app.settings.database_url),
        str(app.settings.home),
    ]
    paths = os.pathsep.join([str(REPO), str(REPO / "tests")])
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, timeout=300)
    assert done.returncode == -signal.SIGKILL
    servers.wait_until(lambda: not healthy(app)[0], "the lock of a load that died is still held")


def repaired(app: App) -> None:
    report = check(app.engine, app.files, app.limits, CheckOptions(repair=True))
    (finding,) = [each for each in report.findings if each.kind == "pgvector-index-missing"]
    assert finding.repaired == "pgvector's index was made of colours" and not finding.wrong


def loaded(app: App) -> None:
    with loading(app, added=1):
        pass


def repaired_by_the_loop(app: App) -> None:
    with HnswRepairLoop(app.engine, 0.05):
        servers.wait_until(lambda: indexed(app), "the repair loop did not build the index")


@pytest.mark.parametrize(
    "finish", [repaired, loaded, repaired_by_the_loop, lambda app: migrate(app.engine)],
    ids=["check", "load", "repair-loop", "migrate"],
)  # fmt: skip
def test_the_next_process_finishes_a_killed_load(
    full: App, finish: Callable[[App], object]
) -> None:
    killed(full)
    assert_exact(full, ask(full), list(range(80)), 1000, 10)
    kinds = [each.kind for each in check(full.engine, full.files, full.limits).findings]
    assert kinds == ["pgvector-index-missing"]
    finish(full)
    assert indexed(full) and healthy(full) == (True, "valid")
    assert ask(full).plan.path == "pgvector-hnsw"


def test_an_invalid_index_is_detected_and_rebuilt(full: App, sql: psycopg.Connection) -> None:
    invalidate_index(sql)
    assert healthy(full)[0] is False
    repaired(full)
    assert indexed(full)


def test_a_keyboard_interrupt_does_not_wait_for_the_index(
    full: App, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KeyboardInterrupt), loading(full):  # type: ignore[attr-defined]
        raise KeyboardInterrupt
    assert not indexed(full) and healthy(full)[0] is False
    assert "check --repair" in caplog.text


@pytest.fixture
def crashing() -> Iterator[Path]:
    with servers.own_server() as home:
        yield home


def test_an_index_build_interrupted_by_a_server_crash_is_repeated(
    crashing: Path, tmp_path: Path
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
            sql.execute("DROP INDEX embedding_m1_vec_idx")
            old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            old.execute("SELECT 1")
            command = [sys.executable, "-c", BUILDER, url, str(tmp_path)]
            builder = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(REPO)})
            servers.wait_until(lambda: waits_for_old_snapshots(sql), "the index is not being built")
            servers.crash(crashing)
            builder.wait(300)
        servers.start(crashing)
        servers.wait_until(lambda: missing(app), "the lock is still held")
        assert ask(app).plan.path == "exact"
        assert [model.id for model in bulk_load.build_missing(app.engine)] == [1]
        assert ask(app).plan.path == "pgvector-hnsw"


BUILDER = """
import sys
from app.catalog import bulk_load
from app.bootstrap import App
from app.config import Settings
bulk_load.build_missing(App(Settings(database_url=sys.argv[1], home=sys.argv[2])).engine)
"""


def waits_for_old_snapshots(sql: psycopg.Connection) -> bool:
    """Whether the build waits for the older transaction: the index is built and not valid yet."""
    row = sql.execute(
        "SELECT EXISTS (SELECT FROM pg_stat_progress_create_index"
        " WHERE phase LIKE 'waiting for old snapshots')"
    ).fetchone()
    return bool(row and row[0])


def missing(app: App) -> bool:
    time.sleep(0.05)
    try:
        with app.engine.connect() as connection:
            return bool(hnsw_index.models_without_index(connection))
    except LookalikeError:
        return False
