"""Errors of commands: one sentence with what to do, and an exit code by kind."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import psycopg
import pytest

from app.cli import BUSY, cli, ingest
from app.errors import Busy
from support.cli_runs import Run
from support.colours import photo
from support.small_clip import save_small_clip

pytestmark = pytest.mark.xdist_group("clip")  # one process imports its libraries


def test_a_temporary_failure_has_its_own_exit_code(
    lookalike: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_place(**_: object) -> None:
        raise Busy

    monkeypatch.setattr(cli.get_command(click.Context(cli), "status"), "callback", no_place)
    ran = lookalike("status")
    assert (ran.code, ran.err) == (BUSY, f"Error: {Busy()}\n")


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


def test_ctrl_c_advises_to_run_again_and_has_exit_code_130(
    cat: Run, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting(ingest._PlainProgress):
        def __call__(self, report: object, _rows: int) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(ingest, "_PlainProgress", Interrupting)
    ran = cat("ingest", source)
    assert ran.code == 130 and "run it again to go on" in ran.err
