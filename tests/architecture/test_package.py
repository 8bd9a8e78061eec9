"""The package: a wheel, built from the source distribution, works outside the source folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from app.cli import main
from app.cli.serve_page import serve
from app.db import client_tools
from app.db.embedded import binaries
from app.db.schema_location import schema_folder
from app.errors import DatabaseUnavailable, SchemaMismatch
from support.paths import REPO

BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_{}(sys.argv[1]))"
TEST_TOOLS = {
    "schemathesis",
    "pytest",
    "hypothesis",
    "mypy",
    "ruff",
    "playwright",
    "squawk-cli",
    "pytest-xdist",
}
MODULES = ("app", "ingest", "lookalike")


def build(kind: str, source: Path, target: Path) -> Path:
    """Build in a process of its own; setuptools changes much of the one that it runs in."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD.format(kind), str(target)],
        cwd=source, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return target / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in a copy of the tracked files, since setuptools writes into the source folder."""
    source = tmp_path_factory.mktemp("source")
    if not (REPO / ".git").exists():
        pytest.skip("not a checkout")
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPO, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in names:
        if name and not name.startswith(("tests/", "docs/", "bench/")) and (REPO / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO / name, source / name)
    return build("sdist", source, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("sdist")
    subprocess.run(["tar", "-xzf", str(sdist), "-C", str(source)], check=True)
    (folder,) = source.iterdir()
    return build("wheel", folder, sdist.parent)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the wheel as they are in a site-packages folder."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_has_every_module_data_file_migration_and_sql_file(installed: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *MODULES, "alembic",
         "sql"],
        cwd=REPO, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    moved = {
        name: re.sub(r"^(alembic|sql)/", r"app/db/schema_files/\1/", name)
        for name in tracked if (REPO / name).exists()
    }  # fmt: skip
    assert len(moved) > 200
    assert [name for name, place in moved.items() if not (installed / place).is_file()] == []
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == set(
        MODULES
    )


def test_the_demo_runs_from_the_wheel_outside_the_source_folder(
    installed: Path, empty_url: str, tmp_path: Path
) -> None:
    program = (
        "import app, app.cli, ingest, lookalike\n"
        "from pathlib import Path\n"
        "for module in (app, ingest, lookalike): print(Path(module.__file__).parents[1])\n"
        "app.cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, "demo", "--no-page", "--products", "32"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {
            "PYTHONPATH": str(installed), "LOOKALIKE_DATABASE_URL": empty_url,
            "LOOKALIKE_HOME": str(tmp_path / "home"), "LOOKALIKE_MODEL": "embedded",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:3] == [str(installed)] * 3
    assert "32 added" in done.stderr and "contact-sheet.png" in done.stdout
    assert not re.search("warn|Loading weights|Traceback", done.stderr, re.IGNORECASE), done.stderr


def test_an_installation_without_the_sql_says_so(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.db.schema_location._PLACES", (installed / "app", installed))
    with pytest.raises(SchemaMismatch, match=r"lacks the migrations.*Install Lookalike again"):
        schema_folder()


def test_an_installation_brings_no_tool_for_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())
    always = [each for each in metadata.get_all("Requires-Dist", []) if "extra ==" not in each]
    names = {re.split(r"[^\w-]", each)[0] for each in always}
    assert {"torch", "faiss-cpu", "psycopg"} <= names and not names & TEST_TOOLS


def test_another_operating_system_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(sys, "argv", ["lookalike", "status"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1 and "Linux and macOS" in capsys.readouterr().err


def test_a_folder_of_the_user_does_not_take_the_place_of_ours_in_the_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[str] = []
    monkeypatch.setattr(os, "execv", lambda program, words: started.extend(words))
    serve("localhost", 8501)
    options = started[1 : started.index("-m")]
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").touch()
    done = subprocess.run(
        [sys.executable, *options, "-c", "import app; print(app.__file__)"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert not Path(done.stdout.strip()).is_relative_to(tmp_path)


def test_without_the_embedded_server_the_error_names_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.db.embedded.binaries.find_spec", lambda name: None)
    with pytest.raises(DatabaseUnavailable, match=r"Linux and macOS.*LOOKALIKE_DATABASE_URL"):
        binaries.binary("postgres")


def test_without_the_embedded_server_client_programs_are_those_on_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("app.db.embedded.binaries.find_spec", lambda name: None)
    (tmp_path / "pg_dump").write_text("#!/bin/sh\necho from PATH\n")
    (tmp_path / "pg_dump").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert client_tools.output("pg_dump", "--version") == "from PATH\n"
    with pytest.raises(DatabaseUnavailable):
        client_tools.output("pg_restore", "--version")
