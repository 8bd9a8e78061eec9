"""An ingest with `prune` deletes the products that its source lacks, and no others."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.bootstrap import App
from app.errors import BadSource
from ingest import load
from ingest.prune_limit import UNLIMITED
from support.ingest_results import run_concurrently, sha, shown
from support.sources import (
    WatchedEncoder,
    contents,
    ingest,
    write_csv,
    write_photos,
    write_source,
)


def test_prune_deletes_products_that_are_not_in_the_source(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    ingest(app, write_source(tmp_path, 70))
    source = write_csv(tmp_path / "c.csv", [{"sku": "P0001", "images": "1.png"}])
    report = ingest(app, source, prune=True, prune_limit=UNLIMITED)
    assert report.deleted == 69 and set(shown(sql)) == {"P0001"}
    assert [row[0] for row in contents(sql)["picture"]] == [sha(1)]
    assert len(contents(sql)["embedding"]) == 1


def test_without_prune_nothing_is_deleted(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    ingest(app, write_source(tmp_path, 2))
    source = write_csv(tmp_path / "c.csv", [{"sku": "P0001", "images": "1.png"}])
    assert ingest(app, source).deleted == 0 and len(shown(sql)) == 2


def test_prune_keeps_the_product_of_a_rejected_row(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    ingest(app, write_source(tmp_path, 3))
    rows = [{"sku": "P0000", "images": "none.png"}, {"sku": "P0001", "images": "1.png"}]
    ingest(app, write_csv(tmp_path / "c.csv", rows), prune=True)
    assert set(shown(sql)) == {"P0000", "P0001"}


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("A,0.png\n,1.png\n", "no readable sku"),
        ('A,0.png\nB,"1.png\n', "no readable sku"),
        ("A,none.png\n", "no row of the source could be used"),
        ("", "no row of the source could be used"),
    ],
    ids=["no sku", "unclosed quote", "all bad", "only a header"],
)
def test_prune_is_refused_for_a_source_that_may_be_incomplete(
    app: App, sql: psycopg.Connection, tmp_path: Path, rows: str, reason: str
) -> None:
    ingest(app, write_source(tmp_path, 3))
    (tmp_path / "c.csv").write_text(f"sku,images\n{rows}")
    with pytest.raises(BadSource, match=reason):
        ingest(app, tmp_path / "c.csv", prune=True)
    assert set(shown(sql)) >= {"P0000", "P0001", "P0002"}


def test_prune_keeps_products_that_others_add_during_the_run(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    ingest(app, write_source(tmp_path / "old", 2))
    other = write_csv(tmp_path / "other.csv", [{"sku": "OTHER"}])
    encoder = WatchedEncoder(lambda encoded: ingest(app, other))
    ingest(app, shop_of(tmp_path / "new", ["N1"]), encoder=encoder, prune=True)
    assert set(shown(sql)) == {"N1", "OTHER"}


def test_prune_keeps_a_product_that_is_added_while_the_source_is_read(
    app: App, sql: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(app, write_source(tmp_path / "old", 2))
    other = write_csv(tmp_path / "other.csv", [{"sku": "OTHER"}])
    count_losses = load.count_losses

    def count_and_add(engine: Any, rows: Any) -> Any:
        result = count_losses(engine, rows)
        monkeypatch.undo()
        ingest(app, other)
        return result

    monkeypatch.setattr(load, "count_losses", count_and_add)
    ingest(app, shop_of(tmp_path / "new", ["N1"]), prune=True)
    assert set(shown(sql)) == {"N1", "OTHER"}


def test_prune_does_not_depend_on_the_clock(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    ingest(app, write_source(tmp_path / "old", 2))
    sql.execute("UPDATE product SET created_at = now() + interval '1 day'")
    other = write_csv(tmp_path / "other.csv", [{"sku": "OTHER"}])

    def add_late_product(_: int) -> None:
        ingest(app, other)
        sql.execute("UPDATE product SET created_at = now() - interval '1 day' WHERE sku = 'OTHER'")

    encoder = WatchedEncoder(add_late_product)
    ingest(app, shop_of(tmp_path / "new", ["N1"]), encoder=encoder, prune=True)
    assert set(shown(sql)) == {"N1", "OTHER"}


def shop_of(folder: Path, skus: list[str]) -> Path:
    """Products with pictures that no other test catalogue has."""
    seeds = range(1000, 1000 + len(skus))
    write_photos(folder, seeds)
    rows = [{"sku": sku, "images": f"{n}.png"} for sku, n in zip(skus, seeds, strict=True)]
    return write_csv(folder / "catalogue.csv", rows)


def test_two_concurrent_prunes_delete_the_same_products(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    ingest(app, write_source(tmp_path / "old", 30))
    source = shop_of(tmp_path / "new", ["N1"])
    real, both = app.catalog.delete, threading.Barrier(2)

    def delete_at_once(skus: list[str], **options: bool) -> int:
        both.wait(300)
        return real(skus, **options)

    app.catalog.delete = delete_at_once  # type: ignore[method-assign]
    reports = run_concurrently(lambda: ingest(app, source, prune=True, prune_limit=UNLIMITED), 2)
    assert sum(report.deleted for report in reports) == 30 and set(shown(sql)) == {"N1"}
