"""The command line: output, exit codes and error messages."""

from __future__ import annotations

import re
import subprocess
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import click
import pytest

from app.cli import COMMANDS, cli, output
from app.cli.model import _absolute as absolute_path
from app.errors import BadSource
from support.cli_runs import Run
from support.paths import REPO
from support.small_clip import save_small_clip
from support.sources import write_csv, write_photos, write_source

pytestmark = pytest.mark.xdist_group("clip")  # one process imports its libraries


LOOKALIKE = Path(sys.executable).with_name("lookalike")


HEAVY = {"torch", "faiss", "streamlit", "transformers", "sentence_transformers"}


def commands(group: Any = cli, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [words]
    if isinstance(group, click.Group):
        context = click.Context(group)
        for name in group.list_commands(context):
            found += commands(group.get_command(context, name), (*words, name))
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_has_help(lookalike: Run, words: tuple[str, ...]) -> None:
    ran = lookalike(*words, "--help")
    assert ran.code == 0 and ran.out.startswith("Usage: ")


def test_the_list_of_commands_has_the_first_sentence_of_each_help() -> None:
    context = click.Context(cli)
    for name, (_, summary) in COMMANDS.items():
        command = cli.get_command(context, name)
        assert command is not None and command.get_short_help_str(200) == summary, name


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['lookalike', 'ingest', '--help']\n"
        "from app.cli import main\n"
        "try: main()\n"
        f"finally: print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines()[-1] == "[]"


def test_the_installed_command_has_a_version() -> None:
    ran = subprocess.run([LOOKALIKE, "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"lookalike, version [\d.]+\n", ran.stdout)


def test_init_twice_changes_nothing(cat: Run) -> None:
    ran = cat("init")
    assert ran.code == 0 and "The model of this database is embedded" in ran.err


def test_a_photo_may_come_from_standard_input(
    cat: Run, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cat("ingest", source)
    given = TextIOWrapper(BytesIO((source.parent / "2.png").read_bytes()))
    monkeypatch.setattr(sys, "stdin", given)
    found = cat("search", "-", "--json").json
    assert found["matches"][0]["sku"] == "P0002"


@pytest.mark.parametrize(
    ("condition", "skus"),
    [
        ("price=12.5", {"A"}),
        ("price=12.5000", {"A"}),
        ("price=9", {"B"}),
        ("price=1", set()),
        ("title=two", {"B"}),
        ("material=wool", {"A"}),
    ],
)
def test_every_column_and_attribute_can_be_filtered_by(
    cat: Run, source: Path, condition: str, skus: set[str]
) -> None:
    source.write_text(
        "sku,title,price,material,images\nA,one,12.50,wool,0.png\nB,two,9.00,silk,1.png\n"
    )
    cat("ingest", source)
    found = cat("search", source.parent / "0.png", "--filter", condition, "--json").json
    assert {match["sku"] for match in found["matches"]} == skus


@pytest.mark.parametrize("title", ["[red]coat[/red]", r"a\[/red]b", "\\", ":smile: [/]"])
def test_a_table_shows_a_title_literally(cat: Run, source: Path, title: str) -> None:
    write_csv(source, [{"sku": "A", "title": title, "images": "0.png"}])
    cat("ingest", source)
    ran = cat("search", source.parent / "0.png")
    assert ran.code == 0 and title in ran.out


def test_the_index_is_built_and_listed(cat: Run, source: Path) -> None:
    assert "No index has been built" in cat("index", "status").out
    cat("ingest", source)
    assert cat("index", "rebuild").out.startswith("Build 1 published: flat, 6 rows")
    (build,) = cat("index", "status", "--json").json
    assert (build["state"], build["rows"], build["recall_at_10"]) == ("published", 6, 1.0)
    found = cat("search", source.parent / "2.png", "--json").json
    assert (found["plan"]["path"], found["plan"]["build"]) == ("faiss", 1)


def test_eval_prints_the_figures(cat: Run, source: Path) -> None:
    cat("ingest", source)
    queries = source.with_name("queries.csv")
    queries.write_text("query,expected_sku\n0.png,P0000\n1.png,P0001\n")
    found = cat("eval", queries, "--json").json
    assert (found["queries"], found["recall_at_1"], found["mrr"]) == (2, 1.0, 1.0)
    assert "recall_at_5      1.000  (95 %: 0.342 to 1.000)" in cat("eval", queries).out


def test_eval_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "q.csv").write_text("query,expected_sku\n0.png,A\n1.png,A\n")
    monkeypatch.setattr(output, "PROGRESS_INTERVAL_S", 0.0)
    monkeypatch.setattr("app.cli.evaluate.App", MagicMock())
    monkeypatch.setattr("app.evaluation.labelled_queries.check_schema", lambda _: None)
    monkeypatch.setattr("app.evaluation.labelled_queries.products", MagicMock())
    with pytest.raises(BadSource, match="None of the queries"):
        cli.main(["eval", str(tmp_path / "q.csv")], standalone_mode=False)
    assert "1 of 2 queries asked" in capsys.readouterr().err


def test_eval_compares_two_runs_and_shows_the_worst(cat: Run, source: Path) -> None:
    cat("ingest", source)
    queries, report = source.with_name("queries.csv"), source.with_name("worst.html")
    queries.write_text("query,expected_sku\n0.png,P0000\n1.png,P0002\n")
    earlier = source.with_name("run.json")
    earlier.write_text(cat("eval", queries, "--json").out)
    same = cat("eval", queries, "--against", earlier, "--report", report).out
    assert "Compared with the other run, over 2 queries: 0 better, 0 worse, 2 the same." in same
    assert "P0002 came" in report.read_text()
    other = cat("eval", queries, "--against", "near-query=0.001", "--json").json["against"]
    assert (other["queries"], other["better"], other["recall_at_1"]) == (2, 1, 0.5)
    for words, says in (
        ("none.json", "none.json cannot be read"),
        (str(queries), "is not what `lookalike eval --json` writes"),
        ("colour=red", "is neither one file"),
        ("fold=perhaps", "fold is true or false"),
        ("near-match=x", "a distance such as 0.05"),
        ("typo_similarity=7", "less than or equal to 1"),
    ):
        refused = cat("eval", queries, "--against", words)
        assert refused.code == 1 and says in refused.err


STATUS = {
    "database", "migration", "model", "encoder", "products", "pictures", "embeddings", "build",
    "build_age_seconds", "delta_rows", "pgvector_index", "close_match",
}  # fmt: skip


def test_duplicates_are_listed_decided_and_measured(cat: Run, tmp_path: Path) -> None:
    write_photos(tmp_path, range(3))
    titles = ["Marria hat", "MARRIA  hats", "Coryard hat"]
    source = write_csv(tmp_path / "in.csv", [
        {"sku": f"P{n}", "title": title, "images": f"{n}.png"} for n, title in enumerate(titles)
    ])  # fmt: skip
    assert cat("ingest", source).code == 0
    listed = cat("duplicates", "pairs", "--json").json
    assert [(row["kept"], row["folded"], row["rule"]) for row in listed] == [
        ("P0", "P1", "same words")
    ]
    assert listed[0]["evidence"] == "words and pictures" and 0 <= listed[0]["distance"] < 0.25
    assert "only read alike" in cat("duplicates", "similar").err
    pairs = write_csv(tmp_path / "pairs.csv", [{"sku_a": "P1", "sku_b": "P0"}])
    assert cat("duplicates", "evaluate", pairs, "--json").json["precision"] == 1.0
    assert "recall        1.000" in cat("duplicates", "evaluate", pairs).out
    decided = cat("duplicates", "decide", "P1", "P0", "--different", "--by", "Ada", "--json")
    assert decided.json["same"] is False and decided.json["decided_by"] == "Ada"
    assert "No two products" in cat("duplicates", "pairs").err
    [alike] = cat("duplicates", "similar", "--json").json
    assert (alike["sku"], alike["similar"], alike["reason"]) == ("P0", "P1", "verdict")
    [found] = cat("search", "--sku", "P2", "--k", "1", "--json").json["matches"]
    assert found["similar_count"] == 1 and found["similar"][0]["reason"] == "verdict"
    cat("duplicates", "decide", "P2", "P0", "--same", "--by", "Ada")
    assert "verdict" in cat("duplicates", "pairs", "--limit", "1").out


def test_status_is_healthy_with_catalogue_and_index(cat: Run, source: Path) -> None:
    cat("ingest", source)
    cat("index", "rebuild")
    cat("delete", "P0001")
    ran = cat("status", "--json")
    assert ran.code == 0 and ran.json["healthy"] is True
    assert set(ran.json) >= STATUS and all(ran.json[name]["ok"] is True for name in STATUS)
    values = {name: ran.json[name]["value"] for name in STATUS}
    assert (values["products"], values["pictures"], values["embeddings"]) == (5, 5, 5)
    assert values["build_age_seconds"] >= 0 and values["delta_rows"] == 0
    assert re.match(r"PostgreSQL 18\S*, postgresql://", values["database"])
    assert values["encoder"].startswith("OpenVINO")
    assert "not calibrated" in values["close_match"]
    assert "lookalike calibrate" in ran.json["close_match"]["advice"]


def test_status_is_unhealthy_without_a_build(cat: Run, source: Path) -> None:
    assert cat("status").code == 0  # nothing is loaded, so nothing is missing
    cat("ingest", source)
    ran = cat("status", "--json")
    assert ran.code == 1 and ran.json["build"]["ok"] is False
    assert "lookalike index rebuild" in ran.json["build"]["advice"]


def test_status_is_unhealthy_without_the_file_of_the_build(
    cat: Run, source: Path, tmp_path: Path
) -> None:
    cat("ingest", source)
    cat("index", "rebuild")
    for file in (tmp_path / "home" / "index").iterdir():
        file.unlink()
    ran = cat("status", "--json")
    assert ran.code == 1 and ran.json["build"]["ok"] is False and ran.json["healthy"] is False


def test_status_counts_what_changed_since_the_build(cat: Run, source: Path) -> None:
    cat("ingest", source)
    cat("index", "rebuild")
    cat("ingest", write_source(source.parent / "more", 9))
    assert cat("status", "--json").json["delta_rows"]["value"] == 3


def test_status_is_unhealthy_without_a_database(
    lookalike: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_DATABASE_URL", "postgresql://127.0.0.1:1/x")
    ran = lookalike("status", "--json")
    assert ran.code == 1 and ran.json["database"]["ok"] is False


@pytest.mark.parametrize(
    ("name", "recorded"),
    [
        ("near", "{}/near"),
        ("near-int8", "{}/near-int8"),
        ("far-int8", "far-int8"),
        ("embedded-int8", "embedded-int8"),
    ],
)
def test_the_folder_of_a_model_is_recorded_as_an_absolute_path(
    name: str, recorded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("near", "embedded"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    assert absolute_path(name) == recorded.format(tmp_path)


def test_a_model_is_added_embedded_compared_activated_rolled_back_and_dropped(
    cat: Run, source: Path, tmp_path: Path
) -> None:
    folder = save_small_clip(tmp_path / "tiny")
    cat("ingest", source)
    cat("index", "rebuild")
    assert cat("model", "add", folder).code == 0
    listed = {row["model"]: row for row in cat("model", "list", "--json").json}
    assert listed["tiny"]["state"] == "kept up to date" and listed["tiny"]["embeddings"] == 0
    refused = cat("model", "activate", "tiny")
    assert refused.code == 1 and "6 pictures have no embedding under it" in refused.err
    assert "6 pictures embedded" in cat("model", "embed", "tiny").err
    assert cat("index", "rebuild", "--model", "tiny").code == 0
    queries, report = source.with_name("queries.csv"), tmp_path / "beside.html"
    queries.write_text("query,expected_sku\n0.png,P0000\n1.png,P0001\n")
    compared = cat("model", "compare", "tiny", "embedded", queries, "--report", report).out
    assert "of ten products found" in compared.lower()
    assert "<h1>tiny compared with embedded</h1>" in report.read_text()
    assert (
        "answers searches from now on; before, it was embedded"
        in cat("model", "activate", "tiny").err
    )
    assert cat("search", source.parent / "2.png", "--json").json["plan"]["model"] == "tiny"
    assert "embedded answers searches" in cat("model", "rollback").err
    assert cat("model", "drop", "tiny", "--yes").code == 0
    assert [row["model"] for row in cat("model", "list", "--json").json] == ["embedded"]
    unknown = cat("model", "activate", "tiny")
    assert unknown.code == 1 and "there are: embedded" in unknown.err
