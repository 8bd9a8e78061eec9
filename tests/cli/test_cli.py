"""The command line: output, exit codes and error messages."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import click
import psycopg
import pytest

from app.bootstrap import App
from app.cli import BUSY, COMMANDS, cli, ingest, main, output
from app.cli.model import _absolute as absolute_path
from app.config import Settings
from app.db.embedded import server as embedded_server
from app.encoders.base import EncoderChoice
from app.encoders.loading import choose_encoder
from app.errors import BadSource, Busy
from support.colours import ColourEncoder, photo
from support.paths import REPO
from support.small_clip import save_small_clip
from support.sources import contents, write_csv, write_photos, write_source

pytestmark = pytest.mark.xdist_group("clip")  # one process imports its libraries

LOOKALIKE = Path(sys.executable).with_name("lookalike")
HEAVY = {"torch", "faiss", "streamlit", "transformers", "sentence_transformers"}


@dataclass(frozen=True)
class Ran:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture(scope="session")
def embedded_template(server_home: Path) -> str:
    """A template database with the embedded encoder as its model."""
    name = "template_embedded"
    with psycopg.connect(embedded_server.url(server_home, "postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    url = embedded_server.url(server_home, name)
    with App(Settings(home=server_home, database_url=url, model="embedded")) as app:
        app.initialise()
    return name


@pytest.fixture
def url(new_database: Callable[[str | None], str], embedded_template: str) -> str:
    return new_database(embedded_template)


@pytest.fixture
def table(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


choose_once = cache(choose_encoder)
"""Each command loads its encoder; in one process, the second command takes that of the first."""


@pytest.fixture
def lookalike(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Run:
    """Runs `lookalike` in this process, with its own home and without a database."""
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOOKALIKE_MODEL", "embedded")
    monkeypatch.setitem(App.__init__.__kwdefaults__, "choose", choose_once)

    def run(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["lookalike", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        assert "Traceback" not in told.out + told.err
        code = ended.value.code
        return Ran(code if isinstance(code, int) else int(bool(code)), told.out, told.err)

    return run


@pytest.fixture
def cat(lookalike: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `lookalike` on a database with the embedded encoder as its model."""
    monkeypatch.setenv("LOOKALIKE_DATABASE_URL", url)
    return lookalike


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "in", 6)


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


def test_a_temporary_failure_has_its_own_exit_code(
    lookalike: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_place(**_: object) -> None:
        raise Busy

    monkeypatch.setattr(cli.get_command(click.Context(cli), "status"), "callback", no_place)
    ran = lookalike("status")
    assert (ran.code, ran.err) == (BUSY, f"Error: {Busy()}\n")


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


def test_an_ingest_encodes_batches_in_parallel_streams_and_a_search_uses_one(
    cat: Run, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.encoders import openvino_runtime

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


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("ingest", "none.csv"), "no file or folder none.csv"),
        (("ingest", "x" * 300), "cannot be read"),
        (("ingest", "folder"), "no picture in folder"),
        (("ingest", "no-sku.csv"), "no column sku"),
        (("ingest", "semicolons.csv"), "save it with commas"),
        (("ingest", "binary.csv"), "not utf-8 text"),
        (("ingest", "in/catalogue.csv", "--rejects", "folder"), "rejects file folder"),
        (("ingest", "in/catalogue.csv", "--encoding", "klingon"), "no encoding named"),
        (("ingest", "/dev/zero"), "neither a file nor a folder"),
        (("delete", "NONE"), "no product has the sku NONE"),
        (("search", "none.jpg"), "none.jpg cannot be read"),
        (("search", "folder"), "folder cannot be read"),
        (("search", "empty.jpg"), "empty"),
        (("search", "binary.txt"), "picture"),
        (("search", "/dev/zero"), "allowed"),
        (("search", "in/0.png", "--k", "0"), "k is 0; ask for 1 to 1000"),
        (("search", "in/0.png", "--k", "-1"), "k is -1"),
        (("search", "in/0.png", "--k", "1000001"), "k is 1000001"),
        (("search", "in/0.png", "--k", "9" * 30), "ask for 1 to 1000"),
        (("search",), "at least one of"),
        (("search", "in/0.png", "--sku", "A"), "not both"),
        (("search", "in/0.png", "--region", "0,0,2,1"), "as shares between 0 and 1"),
        (("search", "--sku", "A", "--region", "0,0,1,1"), "with a picture"),
        (("search", "in/0.png", "--text", "red", "--weight", "7"), "between 0 and 1"),
        (("search", "in/0.png", "--near-match", "-1"), "between 0 and 2"),
        (("search", "in/0.png", "--not-like", "empty.jpg"), "empty"),
        (("search", "in/0.png", "--filter", "weight>=3"), "Only year and price have ranges"),
        (("search", "in/0.png", "--filter", "year=.."), "has no bounds"),
        (("search", "--sku", "NONE"), "has the sku 'NONE'"),
        (("search", "--sku", "x" * 600), "No product"),
        (("search", "--text", "wqzxvk", "--words-by", "model"), "has no idea of 'wqzxvk'"),
        (("search", "in/0.png", "--not-text", "wqzxvk"), "has no idea of 'wqzxvk'"),
        (("search", "--text", " "), "no words"),
        (("search", "in/0.png", "--filter", "brand"), "not of the form column=value"),
        (("search", "in/0.png", "--filter", "year=new"), "not a whole number"),
        (("search", "in/0.png", "--filter", "price=cheap"), "not a number such as 12.50"),
        (("search", "in/0.png", "--filter", "price=NaN"), "is not between"),
        (("search", "in/0.png", "--filter", "price=1e999999"), "is not between"),
        (("search", "in/0.png", "--filter", "brand=\udcff"), "is not text"),
        (("search", "in/0.png", "--filter", "brand=a\0b"), "NUL"),
        (("search", "in/0.png", "--filter", "m\0=a"), "NUL"),
        (("search", "in/0.png", "--filter", "material=\ud800"), "is not text"),
        (("search", "--sku", "\udcff"), "is not text"),
        (("search", "--sku", "a\0b"), "NUL"),
        (("search", "--text", "\udcff"), "is not text"),
        (("delete", "A", "\udcff"), "is not text"),
        (("delete", "a\0b"), "NUL"),
        (("ingest", "in/catalogue.csv", "--rejects", "x" * 300), "Name another file"),
        (("ingest", "in/catalogue.csv", "--images", "loop"), "folder of the pictures"),
        (("init", "--model", "~nosuch/x"), "cannot be loaded either"),
        (("eval", "none.csv"), "none.csv cannot be read"),
        (("eval", "no-sku.csv"), "columns query and expected_sku"),
        (("eval", "empty.jpg"), "columns query and expected_sku"),
        (("duplicates", "decide", "A", "A", "--same", "--by", "Ada"), "name two"),
        (("duplicates", "decide", "A", "B", "--same", "--by", "Ada"), "has the sku A, B"),
        (("duplicates", "decide", "A", "a\0b", "--same", "--by", "Ada"), "NUL"),
        (("duplicates", "evaluate", "none.csv"), "none.csv cannot be read"),
        (("duplicates", "evaluate", "no-sku.csv"), "columns sku_a and sku_b"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_an_error_of_the_user_is_one_sentence_with_exit_code_1(
    cat: Run, source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    words: tuple[str, ...], says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("loop").symlink_to("loop")
    Path("no-sku.csv").write_text("title\nCoat\n")
    Path("semicolons.csv").write_text("sku;title\nA;Coat\n")
    Path("binary.csv").write_bytes(photo(1))
    Path("binary.txt").write_bytes(bytes(range(256)))
    Path("empty.jpg").write_bytes(b"")
    ran = cat(*words)
    assert ran.code == 1 and says in ran.err, ran
    assert ran.out == "" and ran.err.startswith("Error: ") and len(ran.err) < 1000


@pytest.mark.parametrize(
    "words",
    [("ingest",), ("search", "--k", "ten"), ("delete",), ("nonsense",), ("index", "nonsense"),
     ("ingest", "a", "--nonsense"), ("duplicates", "decide", "A", "B", "--by", "Ada"),
     ("duplicates", "decide", "A", "B", "--same")],
    ids=" ".join,
)  # fmt: skip
def test_a_usage_error_has_exit_code_2(lookalike: Run, words: tuple[str, ...]) -> None:
    ran = lookalike(*words)
    assert ran.code == 2 and "Usage: " in ran.err


def test_a_model_that_differs_from_the_recorded_one_is_refused(cat: Run, tmp_path: Path) -> None:
    save_small_clip(tmp_path / "my-clip")
    ran = cat("init", "--model", tmp_path / "my-clip")
    assert ran.code == 1 and "model embedded" in ran.err and "my-clip" in ran.err


def test_init_twice_changes_nothing(cat: Run) -> None:
    ran = cat("init")
    assert ran.code == 0 and "The model of this database is embedded" in ran.err


@pytest.mark.parametrize(
    "words",
    [("ingest", "in"), ("search", "in/0.png"), ("delete", "A"), ("index", "rebuild"), ("status",),
     ("duplicates", "pairs"), ("duplicates", "decide", "A", "B", "--same", "--by", "Ada")],
    ids=" ".join,
)  # fmt: skip
def test_before_init_every_command_advises_to_run_it(
    lookalike: Run, empty_url: str, source: Path, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path, words: tuple[str, ...],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOOKALIKE_DATABASE_URL", empty_url)
    ran = lookalike(*words)
    assert ran.code == 1 and re.search("Run `lookalike (init|migrate)`", ran.out + ran.err)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("nonsense", "not the address of a PostgreSQL database"),
        ("mysql://localhost/x", "does not begin with postgresql"),
        ("postgresql://localhost:port/x", "not the address of a PostgreSQL database"),
        ("postgresql://user:secret@127.0.0.1:1/x", "cannot be reached"),
        ("postgresql://user:secret@no.such.host.invalid/x", "cannot be reached"),
    ],
)
def test_an_unreachable_database_is_reported_without_its_password(
    lookalike: Run, monkeypatch: pytest.MonkeyPatch, source: Path, address: str, says: str
) -> None:
    monkeypatch.setenv("LOOKALIKE_DATABASE_URL", address)
    ran = lookalike("ingest", source)
    assert ran.code == 1 and says in ran.err and "LOOKALIKE_DATABASE_URL" in ran.err
    assert "secret" not in ran.err


def test_a_server_without_pgvector_is_reported(
    lookalike: Run, monkeypatch: pytest.MonkeyPatch, empty_url: str
) -> None:
    with psycopg.connect(empty_url, autocommit=True) as connection:
        # The list of what the server offers, without pgvector, found before the real one.
        connection.execute("CREATE SCHEMA bare")
        connection.execute(
            "CREATE VIEW bare.pg_available_extensions AS SELECT *"
            " FROM pg_catalog.pg_available_extensions WHERE name <> 'vector'"
        )
        connection.execute(
            f"ALTER DATABASE {connection.info.dbname} SET search_path = bare, pg_catalog, public"
        )
    monkeypatch.setenv("LOOKALIKE_DATABASE_URL", empty_url)
    ran = lookalike("init")
    assert ran.code == 1 and "no pgvector. Install pgvector 0.8.4" in ran.err


def test_an_invalid_setting_is_named(lookalike: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_MAX_K", "many")
    ran = lookalike("status")
    assert ran.code == 1 and "LOOKALIKE_MAX_K is 'many'" in ran.err
    monkeypatch.delenv("LOOKALIKE_MAX_K")
    monkeypatch.setenv("LOOKALIKE_LINK_PORTS", "abc")
    assert "not valid: give ports from 1 to 65535" in lookalike("status").err


def test_a_home_of_an_unknown_user_is_reported(
    lookalike: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_HOME", "~nosuch/x")
    ran = lookalike("status")
    assert ran.code == 1 and "LOOKALIKE_HOME is '~nosuch/x'" in ran.err
    assert "name another folder" in ran.err


def test_a_home_that_is_a_link_to_itself_is_reported(
    lookalike: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path / "loop"))
    ran = lookalike("init")
    assert ran.code == 1 and "Choose another folder with LOOKALIKE_HOME" in ran.err


def test_a_home_that_cannot_be_created_is_reported(
    lookalike: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path / "file" / "home"))
    ran = lookalike("init")
    assert ran.code == 1 and "Choose another folder with LOOKALIKE_HOME" in ran.err


def test_an_index_folder_that_cannot_be_created_is_reported(
    cat: Run, monkeypatch: pytest.MonkeyPatch, source: Path, table: psycopg.Connection
) -> None:
    cat("ingest", source)
    monkeypatch.setenv("LOOKALIKE_INDEX_DIR", str(source / "index"))
    ran = cat("index", "rebuild")
    assert ran.code == 1 and "LOOKALIKE_INDEX_DIR" in ran.err
    assert table.execute("SELECT count(*) FROM index_build").fetchone() == (0,)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Limit the size of files in bytes, to simulate a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_index_that_does_not_fit_on_the_disk_is_not_published_and_leaves_no_file(
    cat: Run, source: Path, table: psycopg.Connection, tmp_path: Path
) -> None:
    cat("ingest", source)
    with largest_file(4096):
        ran = cat("index", "rebuild")
    assert ran.code == 1 and "could not be written" in ran.err and "Make room" in ran.err
    assert table.execute("SELECT state FROM index_build").fetchall() == [("rejected",)]
    assert list((tmp_path / "home" / "index").iterdir()) == []
    assert cat("index", "rebuild").code == 0


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


def test_ctrl_c_advises_to_run_again_and_has_exit_code_130(
    cat: Run, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting(ingest._PlainProgress):
        def __call__(self, report: object, _rows: int) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(ingest, "_PlainProgress", Interrupting)
    ran = cat("ingest", source)
    assert ran.code == 130 and "run it again to go on" in ran.err


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
