"""Backfills and ingests on a Ray cluster, while nodes and programs are killed."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.bootstrap import App
from app.cluster import attempts, backfill, fill, job, row_writer, tasks
from app.cluster.session import Cluster
from app.config import Settings
from app.errors import BadSource
from app.index import embedding_reader, faiss_index
from app.models.backfill import BackfillReport
from app.types import Query
from ingest.load import load
from support import random_catalogue
from support.cluster_runs import on_cluster, vectors_by_list
from support.concurrency import wait_until
from support.held_encoder import DEADLY, choose_held, deadly_write_rows, held_encode_pages
from support.paths import REPO
from support.ray_cluster import NODE
from support.recall_queries import few_queries
from support.sources import contents, ingest, versions, write_source

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.ray]

ROWS = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where encoders are held, and say who they are."""
    (tmp_path / "encoders").mkdir()
    return tmp_path / "encoders"


@pytest.fixture
def app(settings: Settings, folder: Path) -> Iterator[App]:
    with App(settings, choose=partial(choose_held, folder)) as app:
        yield app


@pytest.fixture
def described(app: App, folder: Path, nodes: Any) -> job.Job:
    return job.describe(app, nodes.address, partial(choose_held, folder))


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "PICTURES", 8)
    monkeypatch.setattr(row_writer, "ROWS", 8)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "in", ROWS)


@pytest.fixture
def run_backfill(
    app: App, cluster: Cluster, described: job.Job, source: Path
) -> Callable[[], BackfillReport]:
    """Embeds a filled catalogue under a second model, on the cluster."""
    ingest(app, source)
    model = app.lifecycle.add("second")
    return lambda: backfill.embed(app, cluster, described, model, [source.parent])


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold encoders; they go on at the end of the block at the latest."""
    (folder / "hold").touch()
    try:
        yield
    finally:
        (folder / "hold").unlink(missing_ok=True)


def kill_a_node_at_work(nodes: Any, folder: Path) -> None:
    """Kill a node whose task is being encoded, and add another one; then let all go on."""
    wait_until(lambda: len(list(folder.glob("waiting-*"))) == 2)
    doomed = nodes.list_all_nodes()[-1]
    assert list(folder.glob(f"waiting-{doomed.node_id}-*"))
    nodes.remove_node(doomed, allow_graceful=False)
    nodes.add_node(**NODE)
    (folder / "hold").unlink()


def test_a_backfill_survives_the_loss_of_a_node(
    app: App, nodes: Any, folder: Path, run_backfill: Callable[[], BackfillReport],
    sql: psycopg.Connection,
) -> None:  # fmt: skip
    with ThreadPoolExecutor(1) as threads, held(folder):
        running = threads.submit(run_backfill)
        kill_a_node_at_work(nodes, folder)
        report = running.result()
    assert (report.embedded, report.failed, report.left) == (ROWS, 0, 0)
    per_model = sql.execute("SELECT count(*), count(DISTINCT vec) FROM embedding GROUP BY model_id")
    assert per_model.fetchall() == [(ROWS, ROWS)] * 2
    same = "SELECT count(*) FROM embedding AS a JOIN embedding AS b USING (picture_id, vec)"
    assert sql.execute(f"{same} WHERE a.model_id < b.model_id").fetchone() == (ROWS,)


def test_a_backfill_loads_the_encoder_once_in_a_process_and_reports_failures(
    app: App, folder: Path, source: Path, run_backfill: Callable[[], BackfillReport]
) -> None:
    (source.parent / "7.png").unlink()
    report = run_backfill()
    assert (report.embedded, report.failed, report.left) == (ROWS - 1, 1, 1)
    assert "there is no file '7.png'" in report.reasons[0]
    loads = [each.name.rpartition("-")[0] for each in folder.glob("loaded-*-second-*")]
    workers = [each for each in loads if each != f"loaded-{os.getpid()}-second"]
    assert workers and len(workers) == len(set(workers))


def test_two_backfills_at_once_store_each_embedding_once(
    app: App, run_backfill: Callable[[], BackfillReport], sql: psycopg.Connection
) -> None:
    with ThreadPoolExecutor(2) as threads:
        reports = [each.result() for each in [threads.submit(run_backfill) for _ in range(2)]]
    assert sum(report.embedded for report in reports) == ROWS
    assert [report.left for report in reports] == [0, 0]
    assert sql.execute("SELECT count(*) FROM embedding").fetchone() == (2 * ROWS,)


def test_an_ingest_writes_and_refuses_what_an_ordinary_one_does(
    app: App, cluster: Cluster, described: job.Job, source: Path, tmp_path: Path,
    new_database: Callable[[str | None], str], template: str,
) -> None:  # fmt: skip
    (source.parent / "5.png").write_bytes(b"no picture")
    with source.open("a") as file:
        file.write("P0001,twice,1.png\n,no sku,2.png\n")
    url = new_database(template)
    settings = Settings(home=tmp_path / "other", database_url=url)
    with App(settings, choose=described.choose) as other:
        expected = ingest(other, source, rejects=tmp_path / "expected.csv")
    report = on_cluster(app, cluster, described, source, rejects=tmp_path / "rejects.csv")
    for each in (expected, report):
        each.seconds = 0
    assert report == expected and report.added == ROWS - 1 and report.rejected == 3
    refused = [read_csv(tmp_path / f"{name}.csv") for name in ("expected", "rejects")]
    assert refused[0] == refused[1] and len(refused[0]) == 4
    with psycopg.connect(url) as one, psycopg.connect(described_url(app)) as two:
        assert contents(one) == contents(two)
        before = versions(two)
        two.rollback()
        assert on_cluster(app, cluster, described, source).unchanged == ROWS - 1
        assert versions(two) == before
    assert app.catalog.undo(report.run).as_dict()["deleted"] == ROWS - 1


def test_a_build_of_a_cluster_has_the_rows_of_one_snapshot_as_that_of_one_machine(
    app: App, cluster: Cluster, described: job.Job, nodes: Any, folder: Path,
    sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    random_catalogue.fill(app, 1000)
    few_queries(monkeypatch)
    monkeypatch.setattr(faiss_index, "FLAT_ROWS", 100)
    monkeypatch.setattr(embedding_reader, "PAGES_PER_BLOCK", 2)
    monkeypatch.setattr(fill, "BLOCKS", 2)
    monkeypatch.setattr(tasks, "encode_pages", held_encode_pages)
    one = app.indexer.rebuild()
    told: list[str] = []
    with ThreadPoolExecutor(1) as threads, held(folder):
        filled = fill.ClusterFill(cluster, described, told.append)
        running = threads.submit(app.indexer.rebuild, fill=filled)
        wait_until(lambda: list(folder.glob("waiting-*")))
        sql.execute("DELETE FROM embedding WHERE picture_id % 3 = 0")
        kill_a_node_at_work(nodes, folder)
        many = running.result()
    assert many.state == "published" and many.rows == one.rows == 1000 and len(told) > 3
    assert vectors_by_list(app, many) == vectors_by_list(app, one)
    assert (many.kind, many.parameters) == (one.kind, one.parameters)
    result = app.search.search(Query(sku="1", k=20))
    assert (result.plan.path, result.plan.build) == ("faiss", many.id)
    assert len(result.matches) == 20
    assert all(int(match.product.sku) % 3 for match in result.matches)


def test_the_error_of_a_task_ends_the_ingest_as_an_ordinary_one(
    app: App, cluster: Cluster, described: job.Job, source: Path, sql: psycopg.Connection
) -> None:
    writer = row_writer.ClusterWriter(cluster, described, source.parent / "elsewhere")
    with pytest.raises(BadSource, match="elsewhere"):
        load(app.engine, app.catalog, app.encoders, app.limits, source, writer=writer)
    assert sql.execute("SELECT state FROM ingest_run").fetchall() == [("failed",)]


def test_a_row_that_ends_its_process_is_refused_and_the_others_are_written(
    app: App, cluster: Cluster, described: job.Job, source: Path, tmp_path: Path,
    sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(tasks, "write_rows", deadly_write_rows)
    monkeypatch.setattr(attempts, "CRASHES", 1)  # each costs the start of a process
    monkeypatch.setattr(row_writer, "ROWS", 2)
    report = on_cluster(app, cluster, described, source, rejects=tmp_path / "rejects.csv")
    assert (report.read, report.added, report.rejected) == (ROWS, ROWS - 1, 1)
    [_, refused] = read_csv(tmp_path / "rejects.csv")[::-1]
    assert DEADLY in refused and row_writer.CRASHED in refused
    stored = {sku for (sku,) in sql.execute("SELECT sku FROM product")}
    assert len(stored) == ROWS - 1 and DEADLY not in stored


PROGRAM = """
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from app.bootstrap import App
from app.cluster import job, row_writer
from app.cluster.session import connect
from app.config import Settings
from ingest.load import load
from support.held_encoder import choose_held

address, url, home, folder, source = sys.argv[1:]
choose, source = partial(choose_held, Path(folder)), Path(source)
row_writer.ROWS = 8
with App(Settings(home=home, database_url=url), choose=choose) as app:
    described = job.describe(app, address, choose)
    with connect(address, 1) as cluster:
        writer = row_writer.ClusterWriter(cluster, described, source.parent)
        load(app.engine, app.catalog, app.encoders, app.limits, source, writer=writer)
"""


def test_an_ingest_survives_the_loss_of_its_program_and_of_a_node(
    app: App, cluster: Cluster, described: job.Job, nodes: Any, folder: Path, source: Path,
    tmp_path: Path, sql: psycopg.Connection,
) -> None:  # fmt: skip
    (folder / "hold").touch()
    arguments = [nodes.address, described_url(app), tmp_path / "home", folder, source]
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": f"{REPO}{os.pathsep}{REPO / 'tests'}"},
    )
    wait_until(lambda: len(list(folder.glob("waiting-*"))) == 2)
    program.send_signal(signal.SIGKILL)
    program.wait()
    for each in folder.glob("waiting-*"):
        each.unlink()
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(on_cluster, app, cluster, described, source, prune=True)
        kill_a_node_at_work(nodes, folder)
        report = running.result()
    assert report.added + report.unchanged == report.read == ROWS
    for table in ("product", "product_picture", "embedding"):
        assert sql.execute(f"SELECT count(*) FROM {table}").fetchone() == (ROWS,)
    states = sql.execute("SELECT state FROM ingest_run ORDER BY id").fetchall()
    assert states == [("running",), ("finished",)]


def read_csv(file: Path) -> list[list[str]]:
    """The lines in order: a cluster writes them as its tasks end."""
    with file.open(newline="") as lines:
        return sorted(csv.reader(lines))


def described_url(app: App) -> str:
    url = app.settings.database_url
    assert url is not None
    return url
