"""Undoing a run: what it changed comes back, except what was changed since."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psycopg
import pytest

from app.bootstrap import App
from app.catalog import history
from app.catalog.history import HistoryLimits
from app.catalog.service import CatalogService
from app.catalog.undo import UndoReport
from app.cli.ingest import summary
from app.db import locks
from app.db.queries import catalog_stats, models
from app.db.queries import history as history_rows
from app.errors import BadInput
from app.models.backfill import store
from app.types import Query
from ingest.pipeline import IngestReport
from ingest.prune_limit import UNLIMITED
from support.colours import photo
from support.sources import Row, contents, ingest, versions, write_csv, write_photos

SKUS = "ABCDEF"


@pytest.fixture
def shop(app: App, tmp_path: Path) -> App:
    """Products A to F with one picture each; A and B share another one."""
    write_photos(tmp_path, range(12))
    rows = [
        {"sku": sku, "title": f"Coat {sku}", "brand": "Kestrel", "price": "1.50", "size": "XL",
         "images": f"{n}.png" + "|6.png" * (sku in "AB")}
        for n, sku in enumerate(SKUS)
    ]  # fmt: skip
    ingest(app, write_csv(tmp_path / "full.csv", rows))
    return app


def load(app: App, folder: Path, rows: Sequence[Row], **options: object) -> IngestReport:
    return ingest(app, write_csv(folder / "c.csv", rows), force=True, **options)


def counts(report: UndoReport) -> tuple[int, int, int, int]:
    return report.restored, report.deleted, report.as_before, report.changed_since


CHANGES = [
    {"sku": "A", "title": "other", "size": "", "images": "0.png"},
    {"sku": "B", "title": "Coat B", "size": "XL", "images": "8.png|6.png"},
    {"sku": "C", "title": "Coat C", "size": "XL", "images": ""},
    {"sku": "new", "title": "New", "size": "", "images": "9.png"},
]


@pytest.fixture
def changed(shop: App, tmp_path: Path) -> IngestReport:
    """A run that adds one product, changes A, B and C, and deletes D, E and F."""
    report = load(shop, tmp_path, CHANGES, prune=True)
    assert (report.added, report.updated, report.deleted) == (1, 3, 3)
    return report


def test_all_that_a_run_changed_comes_back(
    shop: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    times = "SELECT sku, created_at FROM product ORDER BY sku"
    before, created = contents(sql), sql.execute(times).fetchall()
    run = load(shop, tmp_path, CHANGES, prune=True).run
    after = contents(sql)
    report = shop.catalog.undo(run)
    assert counts(report) == (6, 1, 0, 0) and not report.without_embedding
    assert contents(sql) == before and sql.execute(times).fetchall() == created
    # The undo is a run, which can be undone as well.
    assert counts(shop.catalog.undo(report.undo)) == (4, 3, 0, 0)
    assert contents(sql) == after


def test_a_restored_product_is_found_by_the_next_search(
    shop: App, changed: IngestReport, sql: psycopg.Connection
) -> None:
    shop.indexer.rebuild()
    shop.catalog.undo(changed.run)
    result = shop.search.search(Query(picture=photo(5, side=8), k=1))
    assert (result.matches[0].product.sku, result.plan.path) == ("F", "faiss")


def test_what_was_changed_since_is_left_and_named(
    shop: App, changed: IngestReport, sql: psycopg.Connection, tmp_path: Path
) -> None:
    rows = [{"sku": "A", "price": "9"}, {"sku": "new", "price": "9"}, {"sku": "D", "price": "9"}]
    load(shop, tmp_path, rows)
    shop.catalog.delete(["B"])
    before = {row[0]: row for row in contents(sql)["product"]}
    report = shop.catalog.undo(changed.run)
    assert counts(report) == (3, 0, 0, 4) and sorted(report.left) == ["A", "B", "D", "new"]
    after = {row[0]: row for row in contents(sql)["product"]}
    assert {sku: after[sku] for sku in before if sku != "C"} == {
        sku: row for sku, row in before.items() if sku != "C"
    }
    assert set(after) == {"A", "C", "D", "E", "F", "new"}


def test_a_change_of_the_pictures_alone_counts_as_changed_since(
    shop: App, changed: IngestReport, tmp_path: Path
) -> None:
    load(shop, tmp_path, [{"sku": "A", "images": "10.png"}])
    assert shop.catalog.undo(changed.run).left == ["A"]


def test_an_undo_that_was_interrupted_is_completed_by_the_next(
    shop: App, sql: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(sql)
    run = load(shop, tmp_path, CHANGES, prune=True).run
    monkeypatch.setattr("app.catalog.undo.BATCH_PRODUCTS", 2)
    done: list[int] = []

    def interrupt(*_: object) -> None:
        done.append(1)
        if len(done) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("app.catalog.undo._add", interrupt)
        with pytest.raises(KeyboardInterrupt):
            shop.catalog.undo(run)
    report = shop.catalog.undo(run)
    assert counts(report)[2:] == (4, 0)
    assert contents(sql) == before


def test_runs_are_undone_in_the_reverse_order(
    shop: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    before = contents(sql)
    first = load(shop, tmp_path, [{"sku": "A", "title": "one"}]).run
    second = load(shop, tmp_path, [{"sku": "A", "title": "two"}]).run
    assert shop.catalog.undo(first).changed_since == 1
    assert shop.catalog.undo(second).restored == shop.catalog.undo(first).restored == 1
    assert contents(sql) == before
    assert shop.catalog.undo(first).as_before == 1


def test_a_deletion_is_a_run_and_its_pictures_serve_earlier_runs(
    shop: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    before = contents(sql)
    run = load(shop, tmp_path, [{"sku": "A", "images": "0.png"}]).run  # B keeps the other picture
    shop.catalog.delete(["B"])
    deletion = shop.catalog.undoable_runs(1)[0]
    assert (deletion.kind, deletion.source, deletion.report) == ("delete", "B", {"deleted": 1})
    assert shop.catalog.undo(run).restored == 1
    assert shop.catalog.undo(deletion.id).restored == 1
    assert contents(sql) == before
    assert shop.catalog.ingest_sources() == [str(tmp_path / "c.csv"), str(tmp_path / "full.csv")]
    assert sql.execute("SELECT count(*) FROM analytics.loads").fetchone() == (2,)
    with shop.engine.connect() as connection:
        runs = catalog_stats.runs(connection, 9)
    assert [each.source for each in runs] == [
        f"undo of run {deletion.id} (B)", f"undo of run {run} ({tmp_path / 'c.csv'})",
        "deleted: B", str(tmp_path / "c.csv"), str(tmp_path / "full.csv"),
    ]  # fmt: skip


def test_embeddings_of_every_maintained_model_come_back(
    shop: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    with shop.engine.begin() as connection:
        other, late = (
            models.register(connection, name, "1", 4, name) for name in ("other", "late")
        )
    sql.execute("UPDATE model SET maintained = true WHERE name = 'other'")
    ids = [row[0] for row in sql.execute("SELECT id FROM picture")]
    store(shop.engine, other, {id_: np.eye(4, dtype=np.float32)[0] for id_ in ids})
    before = contents(sql)
    shop.catalog.delete(["A", "B", "C"])
    assert len(contents(sql)["embedding"]) == 2 * 3
    sql.execute("UPDATE model SET maintained = true WHERE name = 'late'")
    report = shop.catalog.undo(shop.catalog.undoable_runs(1)[0].id)
    assert contents(sql) == before
    assert report.without_embedding == {"late": 4} and late.id != other.id


def test_a_picture_that_is_kept_nowhere_is_reported(shop: App, sql: psycopg.Connection) -> None:
    shop.catalog.delete(["B"])
    sql.execute("DELETE FROM picture_history")
    report = shop.catalog.undo(shop.catalog.undoable_runs(1)[0].id)
    assert (report.restored, report.pictures_lost) == (1, 1)
    assert [row[2] for row in contents(sql)["shown"] if row[0] == "B"] == ["6.png"]


def test_a_second_ingest_keeps_no_history(
    shop: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    before = versions(sql)
    run = ingest(shop, tmp_path / "full.csv").run
    assert versions(sql) == before
    with pytest.raises(BadInput, match="it changed nothing"):
        shop.catalog.undo(run)


@pytest.mark.parametrize("run", [99, 2**62])
def test_an_unknown_run_is_an_error(shop: App, run: int) -> None:
    with pytest.raises(BadInput, match=f"no run {run}"):
        shop.catalog.undo(run)


def test_a_run_is_not_undone_while_it_is_alive(shop: App, changed: IngestReport) -> None:
    autocommit = shop.engine.execution_options(isolation_level="AUTOCOMMIT")
    with (
        autocommit.connect() as connection,
        locks.ingest_run(connection, changed.run),
        pytest.raises(BadInput, match="is running, or being undone"),
    ):
        shop.catalog.undo(changed.run)
    assert shop.catalog.undo(changed.run).restored == 6


def test_an_undo_waits_for_a_writer_and_leaves_what_it_changed(
    shop: App, sql: psycopg.Connection, changed: IngestReport, database_url: str
) -> None:
    """Also for a writer that does not take the write lock."""
    reports: list[UndoReport] = []
    with psycopg.connect(database_url) as writer:
        writer.execute("UPDATE product SET title = 'meanwhile' WHERE sku = 'A'")
        undoing = threading.Thread(target=lambda: reports.append(shop.catalog.undo(changed.run)))
        undoing.start()
        undoing.join(0.3)
        assert undoing.is_alive()
        writer.commit()
        undoing.join(300)
    assert reports[0].left == ["A"]
    title = sql.execute("SELECT title FROM product WHERE sku = 'A'").fetchone()
    assert title == ("meanwhile",)


# Limits of the history


def kept(sql: psycopg.Connection) -> list[int]:
    return [row[0] for row in sql.execute("SELECT DISTINCT run_id FROM product_history ORDER BY 1")]


def limited(app: App, **limits: float) -> App:
    app.catalog = CatalogService(app.engine, HistoryLimits(**limits))  # type: ignore[arg-type]
    return app


def test_history_is_bounded_in_age(shop: App, sql: psycopg.Connection, tmp_path: Path) -> None:
    old = load(shop, tmp_path, [{"sku": "A", "title": "one"}]).run
    sql.execute(
        "UPDATE ingest_run SET started_at = now() - interval '31 days' WHERE id = %s", [old]
    )
    assert kept(sql) == [1, old]
    autocommit = shop.engine.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection, locks.ingest_run(connection, old):
        ingest(shop, tmp_path / "full.csv")  # while the run is being undone
        assert old in kept(sql)
    new = load(shop, tmp_path, [{"sku": "A", "title": "two"}]).run
    assert old not in kept(sql) and new in kept(sql)
    with pytest.raises(BadInput, match="not kept any more"):
        shop.catalog.undo(old)


def test_history_is_bounded_in_size(
    shop: App, sql: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [load(shop, tmp_path, [{"sku": "A", "title": f"{n}"}]).run for n in range(3)]
    sizes = dict(sql.execute("SELECT id, history_bytes FROM ingest_run").fetchall())
    monkeypatch.setattr("app.catalog.history.MB", sizes[runs[1]] + sizes[runs[2]])
    new = load(limited(shop, megabytes=1), tmp_path, [{"sku": "A", "title": "z"}]).run
    assert kept(sql) == [*runs[1:], new]


def test_a_run_that_alone_exceeds_the_limit_is_not_kept(
    shop: App, sql: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.prefetch.CHUNK_ROWS", 2)
    monkeypatch.setattr("app.catalog.history.MB", 100)
    rows = [{"sku": sku, "title": f"new {sku}"} for sku in SKUS]
    report = load(limited(shop, megabytes=1), tmp_path, rows)
    assert report.updated == 6 and kept(sql) == []
    assert not report.undoable and "undo" not in summary(report)


def test_a_run_that_is_forgotten_in_part_is_not_undone(
    shop: App, changed: IngestReport, sql: psycopg.Connection, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def interrupt(*_: object) -> int:
        sql.execute("DELETE FROM product_history WHERE run_id = %s AND sku > 'C'", [changed.run])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(history_rows, "forget", interrupt)
        with shop.engine.connect() as connection, pytest.raises(KeyboardInterrupt):
            history.forget(connection.execution_options(isolation_level="AUTOCOMMIT"), changed.run)
    assert changed.run in kept(sql)
    with pytest.raises(BadInput, match="not kept any more"):
        shop.catalog.undo(changed.run)
    ingest(shop, tmp_path / "full.csv")
    assert changed.run not in kept(sql)
    rows = sql.execute("SELECT count(*) FROM picture_history WHERE run_id = %s", [changed.run])
    assert rows.fetchone() == (0,)


def test_nothing_is_kept_when_history_is_turned_off(
    shop: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    limited(shop, days=0)
    rows = [{"sku": "A", "title": "one"}]
    report = load(shop, tmp_path, rows, prune=True, prune_limit=UNLIMITED)
    assert report.updated == 1 and not report.undoable and "undo" not in summary(report)
    shop.catalog.delete(["A"])
    tables = ("product_history", "picture_history", "embedding_history")
    for table in tables:
        assert sql.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
