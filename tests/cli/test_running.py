"""`lookalike search` is answered by a process of the same user, code and settings that runs."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.bootstrap import App
from app.cli import cli, running, search_answer
from app.cli.search_listener import SearchListener
from app.config import Settings
from app.errors import Busy, UnknownProduct
from support.colours import choose_colours, photo
from support.copies import copied_for
from support.shop import add

Run = Callable[..., str]


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
def search(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `lookalike search`; gives what it prints, standard output first."""

    def run(*words: str) -> str:
        capsys.readouterr()
        cli.main(["search", *words], standalone_mode=False)
        told = capsys.readouterr()
        return told.out + told.err.rsplit(", ", 1)[0]  # without the milliseconds

    return run


@pytest.mark.parametrize(
    "words",
    [("--sku", "A"), ("--sku", "A", "--k", "1", "--filter", "brand=café néo", "--facets")],
)
def test_it_prints_what_a_command_prints_by_itself(
    own: App, search: Run, by_itself: list[str], words: tuple[str, ...]
) -> None:
    expected = search(*words)
    assert by_itself == ["A"] and "Café Néo" in expected
    with SearchListener(own):
        assert search(*words) == expected
    assert by_itself == ["A"]


def test_a_photo_is_sent_along(
    listener: SearchListener, search: Run, by_itself: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "photo.png"
    file.write_bytes(photo(2))
    found = json.loads(search(str(file), "--json", "--k", "1", "--no-fold"))
    assert [match["sku"] for match in found["matches"]] == ["B"] and by_itself == []


def test_an_error_is_that_of_the_command(
    listener: SearchListener, search: Run, by_itself: list[str]
) -> None:
    with pytest.raises(Exception, match="nobody") as told:
        search("--sku", "nobody")
    assert by_itself == []
    listener.__exit__(None, None, None)
    with pytest.raises(UnknownProduct) as expected:
        search("--sku", "nobody")
    assert str(told.value) == str(expected.value)


def test_another_setting_is_not_answered(
    listener: SearchListener, search: Run, by_itself: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_MAX_K", "1")
    search("--sku", "A", "--k", "1")
    assert by_itself == ["A"]


def test_other_code_is_not_answered(
    listener: SearchListener, search: Run, by_itself: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "identity", lambda: "another version")
    search("--sku", "A")
    assert by_itself == ["A"]


def test_a_folder_that_others_may_enter_is_not_trusted(
    listener: SearchListener, search: Run, by_itself: list[str], home: Path
) -> None:
    (home / running.FOLDER).chmod(0o755)
    search("--sku", "A")
    assert by_itself == ["A"]


def test_a_process_without_a_free_place_is_not_waited_for(
    listener: SearchListener,
    own: App,
    search: Run,
    by_itself: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise Busy()

    monkeypatch.setattr(own.search, "search", refuse)
    search("--sku", "A")
    assert by_itself == ["A"]


@pytest.mark.parametrize("by", ["a command", "a process that starts"])
def test_the_socket_of_a_killed_process_is_passed_over_and_removed(
    own: App, search: Run, by_itself: list[str], home: Path, by: str
) -> None:
    left = home / running.FOLDER / "1.sock"
    left.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(left))
    if by == "a command":
        search("--sku", "A")
        assert by_itself == ["A"]
    else:
        with SearchListener(own):
            assert len(list(left.parent.iterdir())) == 1
    assert not left.exists()


def test_a_closed_listener_leaves_nothing(
    own: App, search: Run, by_itself: list[str], home: Path
) -> None:
    with SearchListener(own):
        pass
    assert not list((home / running.FOLDER).iterdir())
    search("--sku", "A")
    assert by_itself == ["A"]


def test_a_message_that_is_too_large_is_not_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        running.send(ours, {"options": "x" * 100}, [b"y" * 100])
        with pytest.raises(running.Incomplete):
            running.receive(theirs, max_header=50, max_bytes=1000)
        running.send(ours, {}, [b"y" * 100])
    ours, theirs = socket.socketpair()
    with ours, theirs:
        running.send(ours, {}, [b"y" * 100])
        with pytest.raises(running.Incomplete):
            running.receive(theirs, max_bytes=99)
