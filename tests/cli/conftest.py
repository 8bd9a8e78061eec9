"""Fixtures of the tests of commands: each runs in the test's process, on a database of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from app.bootstrap import App
from app.cli import main
from app.config import Settings
from app.db.embedded import server as embedded_server
from support.cli_runs import Ran, Run, choose_once
from support.sources import write_source


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
