"""A process with a small catalogue that answers `lookalike search`, and that command."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.bootstrap import App
from app.cli import cli, running, search_answer
from app.cli.search_listener import SearchListener
from app.config import Settings
from support.cli_runs import RunPrinted
from support.colours import choose_colours
from support.copies import copied_for
from support.shop import add


def fill(app: App) -> None:
    add(app, {"A": [1], "B": [2], "C": [3]}, category="Shirts", brand="Café Néo")
    app.indexer.rebuild()


database_url = copied_for("own", fill)


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path, as that of a socket must be."""
    folder = Path(tempfile.mkdtemp(prefix="lookalike-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def own(home: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """The services of a process that runs, with the settings of the commands."""
    monkeypatch.setenv("LOOKALIKE_HOME", str(home))
    monkeypatch.setenv("LOOKALIKE_DATABASE_URL", database_url)
    monkeypatch.setenv("LOOKALIKE_SEARCHES_AT_ONCE", "1")
    monkeypatch.setenv("LOOKALIKE_STATEMENT_TIMEOUT_S", "3600")
    monkeypatch.setitem(App.__init__.__kwdefaults__, "choose", choose_colours)
    with App(Settings()) as app:
        yield app


@pytest.fixture
def listener(own: App) -> Iterator[SearchListener]:
    with SearchListener(own) as listening:
        yield listening


@pytest.fixture
def by_itself(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The skus of commands that searched by themselves."""
    searched: list[str] = []
    answer = search_answer.print_answer

    def noted(app: App, options: dict[str, str], photos: running.Photos) -> None:
        searched.append(options["sku"])
        answer(app, options, photos)

    monkeypatch.setattr(search_answer, "print_answer", noted)
    return searched


@pytest.fixture
def search(capsys: pytest.CaptureFixture[str]) -> RunPrinted:
    """Runs `lookalike search`; gives what it prints, standard output first."""

    def run(*words: str) -> str:
        capsys.readouterr()
        cli.main(["search", *words], standalone_mode=False)
        told = capsys.readouterr()
        return told.out + told.err.rsplit(", ", 1)[0]  # without the milliseconds

    return run
