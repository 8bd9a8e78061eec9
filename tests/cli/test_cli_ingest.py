"""`lookalike ingest`, `delete` and `undo`: reports, rejects, progress and exit codes."""

from __future__ import annotations

import os
import pty
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.cli import ingest
from app.encoders.base import EncoderChoice
from support.cli_runs import Ran, Run, choose_once
from support.colours import ColourEncoder
from support.sources import contents, write_csv, write_photos

pytestmark = pytest.mark.xdist_group("clip")  # one process imports its libraries


def test_an_ingest_encodes_batches_in_parallel_streams_and_a_search_uses_one(
    cat: Run, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.encoders import openvino_runtime

    choose_once.cache_clear()  # tests before this one may have compiled it
    real, streams = openvino_runtime.OpenVinoModel, []

    def noted(graph: Any, count: int = 1) -> Any:
        streams.append(count)
        return real(graph, count)

    monkeypatch.setattr(openvino_runtime, "OpenVinoModel", noted)
    monkeypatch.setattr("app.cli.ingest.ENCODERS", 3)
    cat("ingest", source)
    cat("search", next(source.parent.rglob("*.png")))
    assert streams == [3, 1]


def test_a_catalogue_is_loaded_searched_changed_and_deleted(cat: Run, source: Path) -> None:
    ran = cat("ingest", source)
    assert ran.code == 0 and ran.out.startswith(
        "6 rows read: 6 added, 0 updated, 0 unchanged, 0 rejected. 6 pictures embedded, 0 reused"
    )
    found = cat("search", source.parent / "3.png", "--k", "2", "--json")
    assert found.code == 0 and found.json["matches"][0]["sku"] == "P0003"
    assert found.json["matches"][0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert cat("delete", "P0003", "P0003").err == "1 deleted.\n"
    found = cat("search", source.parent / "3.png", "--json")
    assert "P0003" not in [match["sku"] for match in found.json["matches"]]


def test_the_report_is_json_and_a_second_run_reports_unchanged(
    cat: Run, source: Path, table: psycopg.Connection
) -> None:
    first = cat("ingest", source, "--json").json
    assert {key: first[key] for key in ("read", "added", "images_embedded")} == {
        "read": 6, "added": 6, "images_embedded": 6
    }  # fmt: skip
    before = contents(table)
    second = cat("ingest", source, "--json").json
    assert (second["unchanged"], second["images_embedded"], second["images_reused"]) == (6, 0, 6)
    assert contents(table) == before


def test_rejects_are_written_to_a_file_that_is_named(
    cat: Run, source: Path, tmp_path: Path
) -> None:
    source.write_text("sku,price,images\nA,12,0.png\nB,NaN,1.png\n,1,\n")
    ran = cat("ingest", source)
    assert ran.code == 0 and "2 rows and 0 pictures were refused; name a file" in ran.err
    ran = cat("ingest", source, "--rejects", tmp_path / "r.csv")
    assert f"see {tmp_path / 'r.csv'}" in ran.err
    lines = (tmp_path / "r.csv").read_text().splitlines()
    assert lines[0] == "line,sku,image,reason" and lines[1].startswith('3,B,,"the price ')


def test_rejects_go_to_standard_output_and_the_summary_to_standard_error(
    cat: Run, source: Path
) -> None:
    source.write_text("sku,price,images\nA,12,0.png\nB,NaN,1.png\n")
    ran = cat("ingest", source, "--rejects", "-")
    assert [line.split(",")[:2] for line in ran.out.splitlines()] == [["line", "sku"], ["3", "B"]]
    assert "2 rows read" in ran.err and "see standard output" in ran.err
    for other in ("--json", "--dry-run"):
        ran = cat("ingest", source, "--rejects", "-", other)
        assert ran.code == 2 and f"{other} and --rejects - both write" in ran.err


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_refused_rows_set_the_exit_code(cat: Run, source: Path, dry: list[str]) -> None:
    source.write_text("sku,price,images\nA,12,0.png\nB,NaN,1.png\nC,NaN,1.png\n")
    assert cat("ingest", source, *dry).code == 0
    assert cat("ingest", source, "--fail-on-rejects", "2", *dry).code == 0
    ran = cat("ingest", source, "--fail-on-rejects", "1", *dry)
    assert ran.code == 1 and "More was refused than --fail-on-rejects 1 allows" in ran.err
    source.write_text("sku,price\nB,NaN\n")
    ran = cat("ingest", source, *dry)
    assert ran.code == 1 and "Every row was refused" in ran.err
    assert cat("ingest", source, "--fail-on-rejects", "1", *dry).code == 0


def test_a_model_is_fetched_without_a_database(
    lookalike: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    chosen = EncoderChoice(ColourEncoder(), "The model, as asked.")
    with monkeypatch.context() as patch:
        patch.setattr("app.cli.model.choose_encoder", lambda name, revision: chosen)
        ran = lookalike("model", "fetch", "embedded")
    assert ran.code == 0 and "The model, as asked." in ran.err
    ran = lookalike("model", "fetch", "auto")
    assert ran.code == 1 and "Name a model" in ran.err
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    ran = lookalike("model", "fetch", "clip-that-does-not-exist")
    assert ran.code == 1 and "downloads are switched off" in ran.err


def test_images_may_be_in_another_folder(cat: Run, tmp_path: Path) -> None:
    write_photos(tmp_path / "pictures", [0])
    source = write_csv(tmp_path / "c.csv", [{"sku": "A", "images": "0.png"}])
    assert cat("ingest", source, "--images", tmp_path / "pictures", "--json").json["added"] == 1
    ran = cat("ingest", source, "--images", tmp_path / "none")
    assert ran.code == 1 and "folder of the pictures" in ran.err


def test_a_source_in_another_encoding_is_read_when_named(cat: Run, source: Path) -> None:
    source.write_bytes("sku,title\nA,Cr\xe8me\n".encode("latin-1"))
    assert cat("ingest", source, "--json").json["rejected"] == 1
    assert cat("ingest", source, "--encoding", "latin-1", "--json").json["added"] == 1


def test_prune_deletes_what_the_source_lacks(cat: Run, source: Path) -> None:
    cat("ingest", source)
    source.write_text("sku,images\nP0001,1.png\n")
    ran = cat("ingest", source, "--prune")
    assert ran.code == 0 and ", 5 deleted." in ran.out
    ran = cat("ingest", source, "--prune-at-most", "5")
    assert ran.code == 2 and "add --prune" in ran.err


def test_a_source_that_was_cut_short_deletes_nothing_until_the_number_is_named(
    cat: Run, tmp_path: Path, table: psycopg.Connection
) -> None:
    skus = [f"P{n}" for n in range(14)]
    source = write_csv(tmp_path / "c.csv", [{"sku": sku, "title": "a"} for sku in skus])
    cat("ingest", source)
    before = contents(table)
    source.write_text("sku,title\nP0,b\n")
    ran = cat("ingest", source, "--prune")
    assert ran.code == 1 and "13 of 14 products are not in the source" in ran.err
    assert contents(table) == before
    ran = cat("ingest", source, "--prune", "--prune-at-most", "13")
    assert ran.code == 0 and ", 13 deleted." in ran.out


def test_a_dry_run_prints_the_changes_and_exits_as_the_run_would(
    cat: Run, source: Path, table: psycopg.Connection
) -> None:
    cat("ingest", source)
    before = contents(table)
    source.write_text("sku,title\nP0000,new\nX,x\nP0001,a,b\n")
    ran = cat("ingest", source, "--prune", "--dry-run")
    assert ran.code == 0 and "1 would be added, 1 updated, 0 unchanged, 1 rejected" in ran.out
    assert "4 products would be deleted" in ran.out
    lines = [line.split() for line in ran.out.splitlines()]
    assert ["updated", "P0000", "title"] in lines and ["deleted", "P0002"] in lines
    source.write_text("sku,title\nP0000,\n")
    ran = cat("ingest", source, "--dry-run", "--json")
    assert (ran.code, ran.json["updated"], ran.json["dry_run"]) == (1, 1, True)
    assert ran.json["changes"] == [{"change": "updated", "sku": "P0000", "columns": ["title"]}]
    assert ran.json["refused"] in ran.err and "go on with --force" in ran.err
    assert cat("ingest", source, "--dry-run", "--force").code == 0
    assert contents(table) == before


def test_an_undo_brings_back_what_a_run_deleted(
    cat: Run, source: Path, table: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.undo.PROGRESS_INTERVAL_S", 0.0)
    cat("ingest", source)
    before = contents(table)
    source.write_text("sku,title\nP0000,new\nP0001,new\n")
    ran = cat("ingest", source, "--prune")
    run = re.search(r"`lookalike undo (\d+)` takes it back", ran.out)
    assert run is not None and ", 4 deleted" in ran.out
    assert cat("delete", "P0001").code == 0
    listed = {row["run"]: row["kind"] for row in cat("undo", "--json").json}
    assert listed[int(run[1])] == "ingest" and next(iter(listed.values())) == "delete"
    ran = cat("undo", run[1])
    assert ran.code == 0 and "5 products restored, 0 deleted" in ran.out
    assert "6 products after " in ran.err
    assert "Changed since the run, and left as they are: P0001." in ran.err
    (deletion,) = [number for number, kind in listed.items() if kind == "delete"]
    assert cat("undo", deletion, "--json").json["restored"] == 1
    assert cat("undo", run[1]).code == 0 and contents(table) == before
    assert [line.split()[:2] for line in cat("undo").out.splitlines()[1:2]] == [["6", "undo"]]
    ran = cat("undo", "99")
    assert ran.code == 1 and "no run 99; `lookalike undo` lists" in ran.err
    assert cat("undo", "zero").code == 2


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, run: Callable[[], Ran]) -> str:
    """The standard error output of `run` when that is a terminal."""
    ours, theirs = pty.openpty()
    told: list[bytes] = []

    def listen() -> None:
        with open(ours, "rb", buffering=0) as terminal:  # noqa: PTH123
            try:
                while data := terminal.read(4096):
                    told.append(data)
            except OSError:
                return  # the other end was closed

    listener = threading.Thread(target=listen)
    listener.start()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        run()
    listener.join(300)
    return b"".join(told).decode()


def test_a_terminal_shows_a_progress_bar_with_rate_and_remaining_time(
    cat: Run, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    shown = on_a_terminal(monkeypatch, lambda: cat("ingest", source))
    assert "━" in shown and "6/6" in shown and "rows/s" in shown
    assert re.search(r"\d:\d\d:\d\d.*\d:\d\d:\d\d", shown)


def test_without_a_terminal_progress_is_plain_lines(
    cat: Run, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "PROGRESS_INTERVAL_S", 0.0)
    ran = cat("ingest", source)
    assert re.fullmatch(r"6 rows after \d+ s\n", ran.err)
