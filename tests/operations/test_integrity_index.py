"""`lookalike check`: builds, their files, and the copies in the database."""

from __future__ import annotations

import os
import time

import psycopg
import pytest

from app.bootstrap import App
from app.index.builder import only_builder
from support.integrity_checks import (
    FAKE_HASH,
    REPAIR,
    damage,
    file_of,
    only_finding,
    repaired,
    run_check,
)


def test_a_missing_index_file_is_reported_and_fetched(indexed: App) -> None:
    whole = file_of(indexed).read_bytes()
    file_of(indexed).unlink()
    assert run_check(indexed).healthy
    repaired(indexed, "index-files-missing")
    assert file_of(indexed).read_bytes() == whole


def test_a_damaged_index_file_is_fetched(indexed: App) -> None:
    whole = file_of(indexed).read_bytes()
    damage(file_of(indexed))
    assert not run_check(indexed).healthy
    repaired(indexed, "index-files-damaged")
    assert file_of(indexed).read_bytes() == whole


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_build_whose_file_is_lost_is_retired(
    indexed: App, sql: psycopg.Connection, how: str
) -> None:
    sql.execute("DELETE FROM index_chunk")
    if how == "missing":
        file_of(indexed).unlink()
    else:
        damage(file_of(indexed))
    report = run_check(indexed, REPAIR)
    assert "builds-lost" in {each.kind for each in report.findings} and report.healthy
    assert run_check(indexed).findings == () and list(indexed.files.folder.iterdir()) == []
    row = sql.execute("SELECT state, reason FROM index_build").fetchone()
    assert row == ("retired", "its file was lost")


@pytest.mark.parametrize(
    "how",
    [
        "UPDATE index_chunk SET data = set_byte(data, 60, get_byte(data, 60) # 1)",
        "INSERT INTO index_chunk SELECT build_id, 1, data FROM index_chunk",
    ],
)
def test_a_damaged_copy_in_the_database_is_stored_again(
    indexed: App, sql: psycopg.Connection, how: str
) -> None:
    sql.execute(how)  # type: ignore[arg-type]
    repaired(indexed, "index-chunks-damaged")
    file_of(indexed).unlink()
    repaired(indexed, "index-files-missing")


def test_a_build_without_a_copy_in_the_database_is_fine(
    indexed: App, sql: psycopg.Connection
) -> None:
    """As with LOOKALIKE_INDEX_IN_DATABASE=0."""
    sql.execute("DELETE FROM index_chunk")
    assert run_check(indexed).findings == ()


def test_files_that_no_build_needs_are_removed(indexed: App) -> None:
    folder, needed = indexed.files.folder, file_of(indexed)
    for name in (f"{FAKE_HASH}.faiss", "a.tmp", "old.part", "new.part", "notes.txt"):
        (folder / name).write_bytes(b"x")
    os.utime(folder / "old.part", (0, time.time() - 7200))
    finding = repaired(indexed, "files-left")
    assert finding.examples == (f"{FAKE_HASH}.faiss", "a.tmp", "old.part")
    assert {file.name for file in folder.iterdir()} == {needed.name, "new.part", "notes.txt"}


def test_chunks_of_retired_builds_are_removed(indexed: App, sql: psycopg.Connection) -> None:
    sql.execute("UPDATE index_build SET state = 'retired'")
    report = run_check(indexed, REPAIR)
    assert {each.kind for each in report.findings} == {"chunks-retired", "files-left"}
    assert report.healthy and sql.execute("SELECT count(*) FROM index_chunk").fetchone() == (0,)


def test_builds_of_another_database_are_retired(indexed: App, sql: psycopg.Connection) -> None:
    sql.execute("UPDATE index_build SET cluster = '1/2'")
    kinds = [each.kind for each in run_check(indexed, REPAIR).findings]
    assert kinds == ["builds-foreign", "chunks-retired", "files-left"]
    assert run_check(indexed).findings == ()


def test_a_build_whose_builder_disappeared_is_rejected(
    indexed: App, sql: psycopg.Connection
) -> None:
    sql.execute(
        "INSERT INTO index_build (model_id, cluster) SELECT model_id, cluster FROM index_build"
    )
    repaired(indexed, "builds-abandoned")
    states = sql.execute("SELECT state FROM index_build ORDER BY id").fetchall()
    assert states == [("published",), ("rejected",)]


def test_the_index_is_neither_checked_nor_repaired_during_a_build(
    indexed: App, sql: psycopg.Connection
) -> None:
    draft = indexed.files.folder / "a.tmp"
    draft.write_bytes(b"x")
    with only_builder(indexed.engine):
        report = run_check(indexed, REPAIR)
    assert report.findings == () and draft.exists()
    assert any("being built" in each for each in report.left_out)


def test_a_folder_that_cannot_be_written_leaves_the_finding_with_the_reason(
    indexed: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is in the place of the folder, because root may write everywhere else."""
    folder = indexed.files.folder
    folder.rename(folder.with_name("away"))
    folder.write_text("")
    finding = only_finding(indexed, "index-files-missing", REPAIR)
    assert finding.repaired is None and "could not be repaired" in finding.advice
