"""Rows and pictures that an ingest refuses: reported, stored, and never the end of a run."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import psycopg
import pytest

from app.bootstrap import App
from app.errors import BadInput, BadSource
from support.colours import photo
from support.ingest_results import counted, shown
from support.sources import (
    contents,
    ingest,
    write_csv,
    write_photos,
    write_source,
)


def rejects(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


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
