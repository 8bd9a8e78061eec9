"""Ingest: loads a source into the catalogue repeatedly and writes only the changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psycopg
import pytest

from app.bootstrap import App
from app.images.decoding import decode
from support.colours import ColourEncoder, photo
from support.ingest_results import KEYS, counted, sha, shown
from support.sources import (
    WatchedEncoder,
    contents,
    ingest,
    versions,
    write_csv,
    write_photos,
    write_source,
)


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


def test_an_entry_equals_its_stored_form(app: App, sql: psycopg.Connection, tmp_path: Path) -> None:
    write_photos(tmp_path, [0])
    row = {"sku": "靴", "title": "a\r\nb\u0301", "price": "1.23456789012", "year": "0",
           "Ünï": "😀", "images": "0.png"}  # fmt: skip
    source = write_csv(tmp_path / "c.csv", [row])
    assert counted(ingest(app, source)) == (1, 0, 0, 0)
    assert counted(ingest(app, source)) == (0, 0, 1, 0)
