"""Ingest: loads a source into the catalogue repeatedly and writes only the changes."""

from __future__ import annotations

import csv
import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from app.bootstrap import App
from app.catalog.batch_write import Batch
from app.catalog.ingest_run import ingest_run
from app.encoders.projected_encoder import ProjectedEncoder
from app.encoders.torch_threads import thread_count
from app.errors import BadInput, BadSource
from app.images.decoding import decode
from app.types import Product
from ingest import load, prefetch, prepare
from ingest.chunk_writer import ChunkWriter
from ingest.encoder_set import EncoderSet, MaintainedEncoders
from ingest.local_files import LocalPictures
from ingest.pipeline import Ingest, IngestReport
from ingest.prepare import Chunk, Preparer
from ingest.prune_limit import UNLIMITED
from ingest.rejects_file import RejectFile
from ingest.sources import SourceReject, SourceRow
from support.colours import ColourEncoder, photo
from support.sources import (
    SingleEncoder,
    WatchedEncoder,
    contents,
    ingest,
    versions,
    write_csv,
    write_photos,
    write_source,
)

KEYS = {
    "read", "added", "updated", "unchanged", "rejected", "images_embedded", "images_reused",
    "seconds",
}  # fmt: skip


def sha(seed: int, side: int = 8) -> str:
    return hashlib.sha256(photo(seed, side=side)).hexdigest()


def shown(sql: psycopg.Connection) -> dict[str, list[str]]:
    """The uris of the pictures of each product, in order."""
    rows = sql.execute(
        """SELECT sku, array_remove(array_agg(uri ORDER BY position), NULL)
        FROM product LEFT JOIN product_picture ON product_id = product.id GROUP BY sku"""
    )
    return {sku: uris for sku, uris in rows}


def rejects(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def counted(report: IngestReport) -> tuple[int, int, int, int]:
    return report.added, report.updated, report.unchanged, report.rejected


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of three rows, so that a short source has several chunks."""
    monkeypatch.setattr(prefetch, "CHUNK_ROWS", 3)


def test_a_csv_is_loaded_with_its_pictures_in_order_and_its_attributes(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    write_photos(tmp_path, range(3))
    source = write_csv(
        tmp_path / "c.csv",
        [
            {"sku": "A", "title": "Coat", "price": "9.99", "images": "2.png|0.png", "Size": "XL"},
            {"sku": "B", "brand": "Kestrel", "images": "1.png"},
        ],
    )
    report = ingest(app, source)
    assert counted(report) == (2, 0, 0, 0)
    assert shown(sql) == {"A": ["2.png", "0.png"], "B": ["1.png"]}
    stored = sql.execute("SELECT title, price, attributes FROM product WHERE sku = 'A'").fetchone()
    assert stored is not None and (stored[0], str(stored[1])) == ("Coat", "9.9900")
    assert stored[2] == {"Size": "XL"}


def test_every_embedding_is_the_vector_of_its_picture(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    ingest(app, write_source(tmp_path, 70))
    rows = sql.execute(
        "SELECT encode(sha256, 'hex'), vec::vector::real[] FROM embedding JOIN picture"
        " ON picture.id = picture_id"
    )
    stored_vectors = dict(rows.fetchall())
    pictures = [decode(photo(seed, side=8)) for seed in range(70)]
    for seed, vector in enumerate(ColourEncoder().encode_pictures(pictures)):
        assert np.array_equal(np.float16(stored_vectors.pop(sha(seed))), np.float16(vector))
    assert not stored_vectors


def test_a_folder_is_loaded(app: App, sql: psycopg.Connection, tmp_path: Path) -> None:
    write_photos(tmp_path / "hats", [1, 2])
    write_photos(tmp_path / "coats", [3])
    assert counted(ingest(app, tmp_path)) == (3, 0, 0, 0)
    products = sql.execute("SELECT sku, category FROM product ORDER BY sku").fetchall()
    assert products == [("1", "hats"), ("2", "hats"), ("3", "coats")]


def test_the_second_picture_of_one_stem_in_a_folder_is_refused(app: App, tmp_path: Path) -> None:
    for name in ("a.png", "sub/a.png", "sub/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(photo(len(name)))
    assert counted(ingest(app, tmp_path)) == (2, 0, 0, 1)


def test_the_report_has_its_documented_keys(app: App, tmp_path: Path) -> None:
    report = ingest(app, write_source(tmp_path, 1)).as_dict()
    assert set(report) >= KEYS and isinstance(report["seconds"], float) and report["seconds"] > 0


def test_a_second_run_embeds_nothing_and_writes_no_row(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    source = write_source(tmp_path, 70, pictures=2)
    ingest(app, source)
    before = versions(sql)
    encoder = WatchedEncoder()
    report = ingest(app, source, encoder=encoder)
    assert counted(report) == (0, 0, 70, 0)
    assert (report.images_embedded, report.images_reused, encoder.encoded) == (0, 140, 0)
    assert versions(sql) == before


def test_a_changed_row_is_updated_and_no_other_row_is_written(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    source = write_source(tmp_path, 5)
    ingest(app, source)
    before = versions(sql)
    source.write_text(source.read_text().replace("title 3", "another"))
    report = ingest(app, source)
    assert counted(report) == (0, 1, 4, 0) and report.images_embedded == 0
    after = versions(sql)
    assert len(set(after["product"]) - set(before["product"])) == 1
    assert after["product_picture"] == before["product_picture"]
    assert after["embedding"] == before["embedding"]


def test_a_changed_picture_is_embedded_and_the_old_one_is_swept(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    source = write_source(tmp_path, 5)
    ingest(app, source)
    before = versions(sql)
    (tmp_path / "3.png").write_bytes(photo(99, side=8))
    report = ingest(app, source)
    assert counted(report) == (0, 1, 4, 0)
    assert (report.images_embedded, report.images_reused) == (1, 4)
    stored_hashes = {row[0] for row in sql.execute("SELECT encode(sha256, 'hex') FROM picture")}
    assert stored_hashes == {sha(seed) for seed in (0, 1, 2, 4, 99)}
    assert len(set(versions(sql)["embedding"]) - set(before["embedding"])) == 1
    assert len(versions(sql)["embedding"]) == 5


def test_another_order_of_the_pictures_is_a_change(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    write_photos(tmp_path, [0, 1])
    ingest(app, write_csv(tmp_path / "c.csv", [{"sku": "A", "images": "0.png|1.png"}]))
    report = ingest(app, write_csv(tmp_path / "c.csv", [{"sku": "A", "images": "1.png|0.png"}]))
    assert counted(report) == (0, 1, 0, 0) and report.images_embedded == 0
    assert shown(sql) == {"A": ["1.png", "0.png"]}


def test_all_pictures_of_a_product_may_be_removed(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    ingest(app, write_source(tmp_path, 2))
    source = write_csv(tmp_path / "c.csv", [{"sku": "P0000", "images": ""}])
    assert counted(ingest(app, source, force=True)) == (0, 1, 0, 0)
    assert shown(sql) == {"P0000": [], "P0001": ["1.png"]}
    assert contents(sql)["embedding"][0][1] == sha(1)


@pytest.mark.parametrize("between", [0, 200], ids=["in one chunk", "across chunks"])
def test_the_same_bytes_are_embedded_once_and_shared(
    app: App, sql: psycopg.Connection, tmp_path: Path, between: int
) -> None:
    source = write_source(tmp_path, between)
    write_photos(tmp_path, [500])
    (tmp_path / "copy.png").write_bytes(photo(500, side=8))
    source = write_csv(
        source,
        [
            {"sku": "A", "images": "500.png"},
            *({"sku": f"P{n}", "images": f"{n}.png"} for n in range(between)),
            {"sku": "Z", "images": "copy.png"},
        ],
    )
    encoder = WatchedEncoder()
    report = ingest(app, source, encoder=encoder)
    assert encoder.encoded == report.images_embedded == between + 1
    assert report.images_reused == 1
    rows = sql.execute("SELECT sku, uri FROM product JOIN product_picture ON product_id = id"
                       " JOIN picture ON picture.id = picture_id AND encode(sha256, 'hex') = %s"
                       " ORDER BY 1", [sha(500)])  # fmt: skip
    assert rows.fetchall() == [("A", "500.png"), ("Z", "copy.png")]


def test_the_same_bytes_are_embedded_once_across_runs(app: App, tmp_path: Path) -> None:
    write_photos(tmp_path, [0])
    ingest(app, write_csv(tmp_path / "one.csv", [{"sku": "A", "images": "0.png"}]))
    encoder = WatchedEncoder()
    source = write_csv(tmp_path / "two.csv", [{"sku": "B", "images": "0.png"}])
    report = ingest(app, source, encoder=encoder)
    assert (encoder.encoded, report.images_embedded, report.images_reused) == (0, 0, 1)


def test_a_picture_named_twice_in_a_row_is_shown_once(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    write_photos(tmp_path, [0])
    (tmp_path / "copy.png").write_bytes(photo(0, side=8))
    ingest(app, write_csv(tmp_path / "c.csv", [{"sku": "A", "images": "0.png|copy.png|0.png"}]))
    assert shown(sql) == {"A": ["0.png"]}


def test_a_bad_row_is_rejected_and_the_other_rows_are_loaded(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    write_photos(tmp_path, [0, 1])
    source = write_csv(
        tmp_path / "c.csv",
        [
            {"sku": "A", "price": "NaN", "images": "0.png"},
            {"sku": "B", "price": "", "images": "1.png"},
            {"sku": "", "price": "1", "images": "1.png"},
            {"sku": "B", "price": "2", "images": "1.png"},
        ],
    )
    report = ingest(app, source, rejects=tmp_path / "r.csv")
    assert counted(report) == (1, 0, 0, 3) and list(shown(sql)) == ["B"]
    rejected = [(row["line"], row["sku"], row["reason"]) for row in rejects(tmp_path / "r.csv")]
    assert [row[:2] for row in rejected] == [("2", "A"), ("4", ""), ("5", "B")]
    assert (
        "'NaN'" in rejected[0][2]
        and rejected[1][2] == "no sku"
        and "already in line 3" in rejected[2][2]
    )


def test_a_bad_picture_is_rejected_and_the_product_keeps_the_good_ones(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    write_photos(tmp_path, [0])
    (tmp_path / "bad.png").write_bytes(b"no picture")
    source = write_csv(tmp_path / "c.csv", [{"sku": "A", "images": "bad.png|none.png|0.png"}])
    report = ingest(app, source, rejects=tmp_path / "r.csv")
    assert counted(report) == (1, 0, 0, 0) and report.images_rejected == 2
    assert shown(sql) == {"A": ["0.png"]}
    rejected = rejects(tmp_path / "r.csv")
    assert [(row["line"], row["sku"], row["image"]) for row in rejected] == [
        ("2", "A", "bad.png"),
        ("2", "A", "none.png"),
    ]
    assert all(row["reason"] for row in rejected)


def test_a_row_with_only_bad_pictures_is_rejected_and_its_product_unchanged(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    source = write_source(tmp_path, 2)
    ingest(app, source)
    before = contents(sql)
    (tmp_path / "0.png").write_bytes(b"no picture")
    assert counted(ingest(app, source)) == (0, 0, 1, 1)
    assert contents(sql) == before


def test_rejects_are_also_stored_in_the_database(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    source = write_csv(tmp_path / "c.csv", [{"sku": "A", "year": "x"}, {"sku": "B", "year": ""}])
    ingest(app, source)
    runs = sql.execute(
        "SELECT source, state, line, sku, reason FROM ingest_run JOIN ingest_reject"
        " ON run_id = ingest_run.id"
    ).fetchall()
    assert runs == [(str(source), "finished", 2, "A", "the year 'x' is not a whole number")]


@pytest.mark.parametrize(
    "row",
    [
        "A\0B,,",
        "A,,0.png\0",
        "A,t\0,0.png",
        f"{os.urandom(5000).hex()},,0.png",
        "A,,../outside.png",
        "A,,/etc/passwd",
        "A,,pipe.png",
        "A,,folder",
        f"A,,{'x' * 9000}",
    ],
    ids=["nul sku", "nul image", "nul", "long sku", "up", "absolute", "pipe", "folder", "long"],
)  # fmt: skip
def test_no_bad_row_ends_the_run(
    app: App, sql: psycopg.Connection, tmp_path: Path, row: str
) -> None:
    (tmp_path / "outside.png").write_bytes(photo(1))
    folder = tmp_path / "in"
    write_photos(folder, [0])
    os.mkfifo(folder / "pipe.png")
    (folder / "folder").mkdir()
    (folder / "c.csv").write_text(f"sku,title,images\n{row}\nGOOD,,0.png\n")
    report = ingest(app, folder / "c.csv", rejects=tmp_path / "r.csv")
    assert counted(report) == (1, 0, 0, 1) and list(shown(sql)) == ["GOOD"]
    assert len(rejects(tmp_path / "r.csv")) == 1


def test_a_source_and_a_picture_with_undecodable_names_are_loaded(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    write_photos(folder, [0])
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")).write_bytes(photo(1))
    report = ingest(app, folder, rejects=tmp_path / "r.csv")
    assert counted(report) == (1, 0, 0, 1) and list(shown(sql)) == ["0"]


def test_a_failed_run_of_a_source_with_an_undecodable_name_reports_the_original_reason(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    source = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.csv"))
    source.write_text("title\nCoat\n")
    with pytest.raises(BadSource, match="no column sku"):
        ingest(app, source)
    (state,) = sql.execute("SELECT state FROM ingest_run").fetchall()
    assert state == ("failed",)


def test_pictures_are_read_from_the_given_folder(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    write_photos(tmp_path / "pictures", [0])
    source = write_csv(tmp_path / "c.csv", [{"sku": "A", "images": "0.png"}])
    assert counted(ingest(app, source)) == (0, 0, 0, 1)
    assert counted(ingest(app, source, images=tmp_path / "pictures")) == (1, 0, 0, 0)


@pytest.mark.parametrize("target", ["folder", "none/r.csv", "/dev/full"])
def test_a_rejects_file_that_cannot_be_written_is_an_error(
    app: App, tmp_path: Path, target: str
) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadInput, match=r"rejects file .* cannot be written"):
        ingest(app, write_source(tmp_path, 1), rejects=tmp_path / target)


def test_the_rejects_never_overwrite_the_source(app: App, tmp_path: Path) -> None:
    source = write_source(tmp_path, 1)
    with pytest.raises(BadInput, match="would overwrite"):
        ingest(app, source, rejects=tmp_path / "." / "catalogue.csv")
    assert source.read_text().startswith("sku,")


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


def run_concurrently(run: Callable[[], IngestReport], count: int) -> list[IngestReport]:
    """Reports of concurrent runs; an error in any of them is raised."""
    with ThreadPoolExecutor(count) as threads:
        return [future.result() for future in [threads.submit(run) for _ in range(count)]]


def run_rows(
    app: App, rows: Iterator[SourceRow], folder: Path, watch: WatchedEncoder
) -> IngestReport:
    """Runs the pipeline over rows that are generated while it reads them."""
    model = app.catalog.model()
    pictures = LocalPictures(folder, max_bytes=app.limits.max_bytes)
    encoders = MaintainedEncoders(app.catalog, SingleEncoder(watch))
    preparer = Preparer(app.catalog, encoders, pictures, app.limits)
    with ingest_run(app.engine, "rows", model) as run, closing(preparer):
        writer = ChunkWriter(app.catalog, encoders, preparer)
        return Ingest(app.catalog, writer, run, RejectFile(None)).run(rows)


@pytest.mark.parametrize(("images", "ahead"), [(1, 2 * 64), (40, 2 * 4)])
def test_a_source_is_read_at_most_two_chunks_ahead(
    app: App, tmp_path: Path, images: int, ahead: int
) -> None:
    count = 1000 if images == 1 else 40
    write_photos(tmp_path, range(images))
    names = tuple(f"{n}.png" for n in range(images))
    taken = 0
    furthest: list[int] = []

    def rows() -> Iterator[SourceRow]:
        nonlocal taken
        for n in range(count):
            taken += 1
            yield SourceRow(n, Product(f"P{n}"), names)

    real = app.catalog.write

    def write(batch, model, run_id):  # type: ignore[no-untyped-def]
        furthest.append(taken - stored[0] - len(batch.entries))
        stored[0] += len(batch.entries)
        return real(batch, model, run_id)

    stored = [0]
    app.catalog.write = write  # type: ignore[method-assign]
    report = run_rows(app, rows(), tmp_path, WatchedEncoder())
    assert report.added == count and 0 < max(furthest) <= ahead


def test_progress_is_reported_after_every_chunk(
    app: App, tmp_path: Path, small_chunks: None
) -> None:
    counts: list[tuple[int, int]] = []
    ingest(
        app,
        write_source(tmp_path, 8),
        progress=lambda report, rows: counts.append((report.read, rows)),
    )
    assert counts == [(3, 8), (6, 8), (8, 8)]


def test_a_picture_deleted_between_reading_and_writing_is_stored_again(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    ingest(app, write_source(tmp_path, 1))
    write_photos(tmp_path, [7])
    source = write_csv(tmp_path / "c.csv", [{"sku": "NEW", "images": "0.png|7.png"}])
    # The run found 0.png stored and brings only 7.png; then the picture is deleted.
    gone = iter([["P0000"]])
    encoder = WatchedEncoder(lambda encoded: [app.catalog.delete(skus) for skus in gone])
    assert counted(ingest(app, source, encoder=encoder)) == (1, 0, 0, 0)
    assert shown(sql) == {"NEW": ["0.png", "7.png"]}
    assert {row[1] for row in contents(sql)["embedding"]} == {sha(0), sha(7)}


def test_two_concurrent_runs_of_one_source_end_like_a_single_run(
    app: App, sql: psycopg.Connection, tmp_path: Path, small_chunks: None
) -> None:
    source = write_source(tmp_path, 40, pictures=2)
    reports = run_concurrently(lambda: ingest(app, source), 3)
    assert sum(report.added for report in reports) == 40
    loaded = contents(sql)
    assert [len(loaded[name]) for name in ("product", "picture", "embedding")] == [40, 80, 80]
    assert Counter(row[0] for row in loaded["shown"]) == {f"P{n:04}": 2 for n in range(40)}


def test_deleting_during_an_ingest_never_loses_a_picture(
    app: App, sql: psycopg.Connection, tmp_path: Path, small_chunks: None
) -> None:
    write_photos(tmp_path, range(6))
    rows = [{"sku": f"P{n}", "images": f"{n % 6}.png|{(n + 1) % 6}.png"} for n in range(18)]
    source = write_csv(tmp_path / "c.csv", rows)
    ended = threading.Event()

    def deleting() -> None:
        turn = 0
        while not ended.is_set():
            turn += 1
            app.catalog.delete([f"P{(turn * 7 + m) % 18}" for m in range(12)], missing_ok=True)

    thread = threading.Thread(target=deleting)
    thread.start()
    try:
        for _ in range(12):
            ingest(app, source)
            lost = sql.execute(
                "SELECT count(*) FROM product_picture AS pp WHERE NOT EXISTS"
                " (SELECT FROM embedding AS e WHERE e.picture_id = pp.picture_id)"
            ).fetchone()
            assert lost == (0,)
    finally:
        ended.set()
        thread.join()
    ingest(app, source)
    assert shown(sql) == {str(row["sku"]): str(row["images"]).split("|") for row in rows}


IMAGES = [f"{n}.png" for n in range(5)]
COPIES = {"copy.png": "0.png"}
BAD = ["broken.png", "none.png", "../up.png"]
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "sku": st.sampled_from(["A", "B", "C", "D", "E", "F", ""]),
            "title": st.sampled_from(["", "coat", "hat"]),
            "price": st.sampled_from(["", "1", "2.50", "nan", "x"]),
            "images": st.lists(st.sampled_from([*IMAGES, *COPIES, *BAD]), max_size=4),
            "size": st.sampled_from(["", "XL"]),
        }
    ),
    max_size=12,
)
Shop = dict[str, tuple[tuple[str, ...], list[tuple[str, str]]]]


class Expected:
    """Reference model: the expected contents of the catalogue, from the documented rules."""

    def __init__(self) -> None:
        self.products: Shop = {}

    def run(self, rows: list[dict]) -> Counter[str]:  # type: ignore[type-arg]
        counts: Counter[str] = Counter(read=len(rows))
        seen: set[str] = set()
        for begin in range(0, len(rows), 3):
            # A picture is known if a product shows it when its chunk is written.
            known = {digest for _, shown in self.products.values() for digest, _ in shown}
            mentioned: list[str] = []
            for row in rows[begin : begin + 3]:
                entry = None if row["sku"] in seen else self._entry(row)
                seen.add(row["sku"])
                if entry is None:
                    counts["rejected"] += 1
                    continue
                mentioned += [digest for digest, _ in entry[1]]
                before = self.products.get(row["sku"])
                counts["added" if before is None else
                     "unchanged" if before == entry else "updated"] += 1  # fmt: skip
                self.products[row["sku"]] = entry
            counts["images_embedded"] += len(set(mentioned) - known)
            counts["images_reused"] += len(mentioned) - len(set(mentioned) - known)
        return counts

    def _entry(self, row: dict) -> tuple[tuple[str, ...], list[tuple[str, str]]] | None:  # type: ignore[type-arg]
        if not row["sku"] or row["price"] in ("nan", "x"):
            return None
        good: dict[str, str] = {}
        for name in row["images"]:
            if name not in BAD:
                good.setdefault(sha(IMAGES.index(COPIES.get(name, name))), name)
        if row["images"] and not good:
            return None
        price = f"{float(row['price']):.4f}" if row["price"] else ""
        return (row["title"], price, row["size"]), list(good.items())


@pytest.fixture
def images_folder(tmp_path: Path) -> Path:
    write_photos(tmp_path / "in", range(5))
    (tmp_path / "in" / "copy.png").write_bytes(photo(0, side=8))
    (tmp_path / "in" / "broken.png").write_bytes(photo(0)[:60])
    (tmp_path / "up.png").write_bytes(photo(1))
    return tmp_path / "in"


@settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(catalogues=st.lists(ROWS, min_size=1, max_size=3))
def test_any_sequence_of_catalogues_leaves_the_contents_of_the_reference_model(
    app: App, sql: psycopg.Connection, images_folder: Path, small_chunks: None,
    catalogues: list,
) -> None:  # fmt: skip
    sql.execute("TRUNCATE product, picture CASCADE")
    expected = Expected()
    for rows in catalogues:
        # A row of only commas is skipped by the CSV reader, so rows without a sku have a currency.
        lines = [
            {**row, "images": "|".join(row["images"]), "currency": "" if row["sku"] else "EUR"}
            for row in rows
        ]
        columns = [dict.fromkeys(("sku", "title", "price", "images", "size"), "")]
        source = write_csv(images_folder / "c.csv", lines or columns)
        if not lines:
            source.write_text("sku\n")
        report = ingest(app, source, force=True)
        counts = expected.run(rows)
        assert {key: getattr(report, key) for key in KEYS - {"seconds"}} == {
            key: counts[key] for key in KEYS - {"seconds"}
        }
        assert report.read == sum(counted(report))
        assert stored(sql) == expected.products
        pictures = {digest for _, shown in expected.products.values() for digest, _ in shown}
        assert [row[0] for row in contents(sql)["picture"]] == sorted(pictures)
        assert [row[1] for row in contents(sql)["embedding"]] == sorted(pictures)


def stored(sql: psycopg.Connection) -> Shop:
    products: Shop = {
        sku: ((title, "" if price is None else str(price), attributes.get("size", "")), [])
        for sku, title, price, attributes in sql.execute(
            "SELECT sku, title, price, attributes FROM product"
        )
    }
    for sku, _, uri, digest in contents(sql)["shown"]:
        products[sku][1].append((digest, uri))
    return products


def test_an_entry_equals_its_stored_form(app: App, sql: psycopg.Connection, tmp_path: Path) -> None:
    write_photos(tmp_path, [0])
    row = {"sku": "靴", "title": "a\r\nb\u0301", "price": "1.23456789012", "year": "0",
           "Ünï": "😀", "images": "0.png"}  # fmt: skip
    source = write_csv(tmp_path / "c.csv", [row])
    assert counted(ingest(app, source)) == (1, 0, 0, 0)
    assert counted(ingest(app, source)) == (0, 0, 1, 0)


class MeasuringPreparer(Preparer):
    """Records the number of bytes of prepared pictures in each chunk."""

    held: list[int]

    def prepare(
        self, rows: Sequence[SourceRow | SourceReject], pending: AbstractSet[bytes] = frozenset()
    ) -> Chunk:
        chunk = super().prepare(rows, pending)
        inputs = [each for new in chunk.new.values() for each in new.inputs or ()]
        self.held.append(sum(each.nbytes for each in inputs))
        return chunk


PREPARED = 4 * 4 * 3
"""Bytes of a picture as prepared for the test encoder."""


@pytest.fixture
def prepared_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of prepared pictures of each chunk."""
    monkeypatch.setattr(load, "Preparer", MeasuringPreparer)
    MeasuringPreparer.held = []
    return MeasuringPreparer.held


def test_a_chunk_holds_no_more_prepared_pictures_than_allowed(
    app: App, sql: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    prepared_bytes: list[int],
) -> None:  # fmt: skip
    """Other pictures are decoded when they are encoded; the result is the same."""
    source = write_source(tmp_path, 30)
    monkeypatch.setattr(prepare, "INPUT_BYTES", 5 * PREPARED)
    monkeypatch.setattr(prefetch, "ENCODED_BYTES", 3 * PREPARED)
    monkeypatch.setattr(prefetch, "ENCODERS", 1)
    batches: list[int] = []
    report = ingest(app, source, encoder=WatchedEncoder(batches.append))
    assert (report.added, report.images_embedded) == (30, 30)
    assert prepared_bytes == [5 * PREPARED]
    assert max(np.diff([*batches, 30])) <= 4
    assert len(contents(sql)["embedding"]) == 30


def test_files_that_do_not_fit_in_memory_are_read_again(
    app: App, sql: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_source(tmp_path, 30)
    monkeypatch.setattr(
        prepare, "FILE_BYTES", 5 * max(f.stat().st_size for f in tmp_path.glob("*.png"))
    )
    read: list[str] = []
    real = LocalPictures.read
    monkeypatch.setattr(
        LocalPictures, "read", lambda self, name: read.append(name) or real(self, name)
    )
    assert ingest(app, source).images_embedded == 30
    assert 5 <= sum(count == 1 for count in Counter(read).values()) < 10
    assert {row[1] for row in contents(sql)["embedding"]} == {sha(n) for n in range(30)}


@pytest.mark.parametrize(
    ("sides", "suffices"), [((64,), 64), ((64, 512), 512), ((64, None), None), ((None,), None)]
)
def test_pictures_are_prepared_for_the_model_with_the_largest_input(
    app: App, sides: tuple[int | None, ...], suffices: int | None
) -> None:
    encoders = [ColourEncoder() for _ in sides]
    for encoder, side in zip(encoders, sides, strict=True):
        encoder.input_side = side
    assert EncoderSet((app.catalog.model(),) * len(sides), tuple(encoders)).input_side == suffices


def test_a_fitted_model_and_the_one_it_follows_encode_a_picture_once(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, other = ColourEncoder(), ColourEncoder("other")
    weights = np.random.default_rng(1).normal(size=(base.dim, base.dim)).astype(np.float32)
    fitted = ProjectedEncoder("fitted", base, np.eye(base.dim, dtype=np.float32) + 0.1 * weights)
    model = app.catalog.model()
    models = tuple(replace(model, id=number) for number in range(3))
    encoders = EncoderSet(models, (fitted, other, base))
    asked: list[str] = []
    real = ColourEncoder.encode_prepared
    monkeypatch.setattr(
        ColourEncoder, "encode_prepared",
        lambda self, prepared: asked.append(self.name) or real(self, prepared),
    )  # fmt: skip
    pictures = [Image.open(BytesIO(photo(seed))).convert("RGB") for seed in range(3)]
    vectors = encoders.encode([encoders.prepare(picture) for picture in pictures])
    assert sorted(asked) == ["colours", "other"]
    for encoder, (_, found) in zip(encoders.encoders, sorted(vectors.items()), strict=True):
        assert np.array_equal(found, encoder.encode_pictures(pictures))


def test_a_picture_is_read_and_decoded_once(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_source(tmp_path, 5)
    done: Counter[str] = Counter()
    reading, decoding = LocalPictures.read, prepare.decode_with_size

    def read(self: LocalPictures, name: str) -> bytes:
        done["read"] += 1
        return reading(self, name)

    def decoded(*arguments: Any, **named: Any) -> Any:
        done["decoded"] += 1
        return decoding(*arguments, **named)

    monkeypatch.setattr(LocalPictures, "read", read)
    monkeypatch.setattr(prepare, "decode_with_size", decoded)
    ingest(app, source)
    assert done == {"read": 5, "decoded": 5}


def test_the_next_chunk_is_encoded_while_one_is_written(
    app: App, tmp_path: Path, small_chunks: None
) -> None:
    encoder = WatchedEncoder()
    real, encoded = app.catalog.write, []

    def write(batch: Batch, model: Any, run_id: int | None) -> Any:
        if not encoded:
            wait_until(lambda: encoder.encoded >= 6)
        encoded.append(encoder.encoded)
        return real(batch, model, run_id)

    app.catalog.write = write  # type: ignore[method-assign]
    ingest(app, write_source(tmp_path, 9), encoder=encoder)
    assert encoded[0] >= 6


def test_a_picture_of_the_previous_chunk_is_not_encoded_again(
    app: App, tmp_path: Path, small_chunks: None, prepared_bytes: list[int]
) -> None:
    """Even if it was not stored when the second chunk was prepared."""
    write_source(tmp_path, 5)
    (tmp_path / "copy.png").write_bytes(photo(0, side=8))
    names = ["0.png", "1.png", "2.png", "3.png", "copy.png", "4.png"]
    rows = [{"sku": f"P{n}", "images": name} for n, name in enumerate(names)]
    real = app.catalog.write

    def write(batch: Batch, model: Any, run_id: int | None) -> Any:
        wait_until(lambda: len(prepared_bytes) == 2)
        return real(batch, model, run_id)

    app.catalog.write = write  # type: ignore[method-assign]
    encoder = WatchedEncoder()
    report = ingest(app, write_csv(tmp_path / "c.csv", rows), encoder=encoder)
    assert encoder.encoded == report.images_embedded == 5
    assert (report.added, report.images_reused) == (6, 1)


def wait_until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not there():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.01)


def test_at_most_eight_threads_decode_on_any_number_of_cores(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()
    read = LocalPictures.read

    def slowly(pictures: LocalPictures, name: str) -> bytes:
        seen.add(threading.current_thread().name)
        time.sleep(0.02)
        return read(pictures, name)

    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(LocalPictures, "read", slowly)
    assert ingest(app, write_source(tmp_path, 60)).added == 60
    assert len(seen) == 8


def test_an_ingest_restores_the_thread_count_of_torch(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, three_threads: None
) -> None:
    monkeypatch.setattr(prefetch, "ENCODERS", 3)
    seen: list[int] = []
    with pytest.raises(RuntimeError):
        ingest(app, write_source(tmp_path, 3), encoder=WatchedEncoder(lambda _: stopped(seen)))
    thread = threading.Thread(target=lambda: seen.append(thread_count()))
    thread.start()
    thread.join()
    assert seen == [1, 3]


@pytest.fixture
def three_threads() -> Iterator[None]:
    """torch computes with three threads; FAISS may use the same library of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def stopped(seen: list[int]) -> None:
    seen.append(thread_count())
    raise RuntimeError
