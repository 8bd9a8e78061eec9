"""`lookalike search` is answered by a process of the same user, code and settings that runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from pydantic import ValidationError

from app.bootstrap import App
from app.cli import cli, running, search_answer
from app.cli import search as search_command
from app.cli.search_listener import SearchListener
from app.config import Settings
from app.errors import DatabaseUnavailable, LookalikeError, UnknownProduct
from app.search.vector_cache import VectorCache
from app.types import Query, SearchResult
from support.colours import choose_colours, photo
from support.concurrency import wait_until
from support.copies import copied_for
from support.paths import REPO
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


def test_a_folder_that_others_may_enter_is_not_trusted(
    listener: SearchListener, search: Run, by_itself: list[str], home: Path
) -> None:
    (home / running.FOLDER).chmod(0o755)
    search("--sku", "A")
    assert by_itself == ["A"]


def test_a_process_without_a_free_place_is_not_waited_for(
    listener: SearchListener, own: App, search: Run, by_itself: list[str]
) -> None:
    waiting: list[int] = []
    with own.admission.admitted():
        own.admission.on_change(lambda _, waits: waiting.append(waits))
        search("--sku", "A")
        assert by_itself == ["A"] and waiting == []
    search("--sku", "A")
    assert by_itself == ["A"] and set(waiting) == {0}


@pytest.mark.parametrize("error", [DatabaseUnavailable, LookalikeError])
def test_an_error_that_the_command_may_not_have_is_not_its_answer(
    listener: SearchListener,
    own: App,
    search: Run,
    by_itself: list[str],
    monkeypatch: pytest.MonkeyPatch,
    error: type[LookalikeError],
) -> None:
    def fail(*_: object) -> None:
        if error is LookalikeError:
            listener.__exit__(None, None, None)  # the process ends
        raise error()

    monkeypatch.setattr(own.search, "search", fail)
    search("--sku", "A")
    assert by_itself == ["A"]


def test_a_long_search_is_waited_for_as_long_as_the_process_works(
    listener: SearchListener,
    own: App,
    search: Run,
    by_itself: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    beats, send, find = threading.Semaphore(0), running.send, own.search.search

    def noted(connection: socket.socket, values: Mapping[str, object]) -> None:
        send(connection, values)
        if values == running.WORKING:
            beats.release()

    def slow(query: Query, cache: VectorCache) -> SearchResult:
        assert all(beats.acquire(timeout=30) for _ in range(4))
        return find(query, cache)

    monkeypatch.setattr(running, "BEAT_S", 0.01)
    monkeypatch.setattr(running, "send", noted)
    monkeypatch.setattr(own.search, "search", slow)
    assert "title B" in search("--sku", "A") and by_itself == []


def test_a_statement_of_a_command_that_has_ended_is_cancelled(
    listener: SearchListener,
    own: App,
    home: Path,
    database_url: str,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def waiting() -> bool:
        query = (
            "SELECT FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return sql.execute(query).fetchone() is not None

    monkeypatch.setattr(running, "BEAT_S", 0.05)
    given = search_command.search.make_context("search", ["--sku", "A"]).params
    photos: dict[str, list[int]] = {"photo": [], "also": [], "not_like": []}
    options = {name: value for name, value in given.items() if name not in photos}
    header = {
        "identity": running.identity(), "options": options, "photos": photos,
        "columns": None, "plain": True,
    }  # fmt: skip
    (address,) = (home / running.FOLDER).iterdir()
    with psycopg.connect(database_url) as holder, socket.socket(socket.AF_UNIX) as command:
        holder.execute("LOCK TABLE product")
        command.connect(str(address))
        running.send(command, header)
        assert running.receive(command) == running.WORKING
        wait_until(waiting)
        command.close()
        wait_until(lambda: not waiting() and not own.admission.running)


def message(json_text: str) -> bytes:
    return struct.pack(">I", len(json_text)) + json_text.encode()


WORKING = message(json.dumps(running.WORKING))


@pytest.mark.parametrize(
    "told",
    [
        b"",
        WORKING,
        WORKING + WORKING + WORKING[:7],
        WORKING + message("no JSON"),
        WORKING + message("[" * 100_000),
        WORKING + message("[]"),
        WORKING + message("{}"),
        WORKING + message('{"out": "x"}'),
        WORKING + message('{"error": null}'),
        message('{"out": "not asked", "err": ""}'),
    ],
    ids=["nothing", "stopped", "cut", "text", "deep", "list", "empty", "half", "null", "early"],
)
def test_a_process_that_does_not_answer_or_answers_nonsense_is_passed_over(
    own: App,
    search: Run,
    by_itself: list[str],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    told: bytes,
) -> None:
    monkeypatch.setattr(running, "ACCEPT_S", 0.2)
    monkeypatch.setattr(running, "SILENCE_S", 0.2)
    address = home / running.FOLDER / "1.sock"
    address.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.bind(str(address))
        stopped.listen()
        with ExitStack() as opened:

            def answer() -> None:
                connection = opened.enter_context(stopped.accept()[0])
                connection.sendall(told)

            thread = threading.Thread(target=answer, daemon=True)
            thread.start()
            expected = search("--sku", "A")
            thread.join()
    assert by_itself == ["A"] and "not asked" not in expected and address.exists()


def test_a_process_of_another_user_is_told_nothing(
    listener: SearchListener, search: Run, by_itself: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    monkeypatch.setattr(running, "send", lambda _, values: told.append(values))
    monkeypatch.setattr(running, "is_own_user", lambda _: False)
    search("--sku", "A")
    assert by_itself == ["A"] and told == []


def test_a_setting_that_is_a_path_in_the_current_folder_tells_folders_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for each in folders:
        each.mkdir()
        (each / "pg_service.conf").touch()

    def identities() -> set[str]:
        seen = set()
        for each in folders:
            monkeypatch.chdir(each)
            seen.add(running.identity())
        return seen

    assert len(identities()) == 1
    monkeypatch.setenv("PGSERVICEFILE", "pg_service.conf")
    assert len(identities()) == 2


def test_a_module_that_was_replaced_by_an_older_one_is_other_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("__init__.py", "search.py"):
        (tmp_path / name).touch()
    monkeypatch.setattr("app.__file__", str(tmp_path / "__init__.py"))
    before = running.identity()
    os.utime(tmp_path / "search.py", (1, 1))
    assert running.identity() != before


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


def test_a_home_folder_that_cannot_be_is_refused_by_the_command_itself(
    search: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_HOME", "~no such user/home")
    with pytest.raises(ValidationError, match="name another folder"):
        search("--sku", "A")


def test_a_socket_that_does_not_listen_yet_is_not_removed(
    own: App, search: Run, by_itself: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listen = socket.socket.listen

    def late(listening: socket.socket) -> None:
        search("--sku", "A")
        listen(listening)

    monkeypatch.setattr(socket.socket, "listen", late)
    with SearchListener(own):
        search("--sku", "A")
    assert by_itself == ["A"]


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
        running.send(ours, {"options": "x" * 100})
        with pytest.raises(running.Incomplete):
            running.receive(theirs, 50)


@pytest.mark.parametrize("sizes", [[10**10], [-1, 10], ["1"], [1.5]])
def test_photos_of_impossible_sizes_are_not_read(
    listener: SearchListener, home: Path, sizes: list[object]
) -> None:
    (address,) = (home / running.FOLDER).iterdir()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(address))
        running.send(connection, {"identity": running.identity(), "photos": {"photo": sizes}})
        with pytest.raises(running.Incomplete):
            running.receive(connection)


PAGE = """
import runpy, signal, sys
from pathlib import Path
from types import ModuleType
from app.bootstrap import App
from app.cli.search_listener import SearchListener
from app.config import Settings

class Impatient(SearchListener):
    def __exit__(self, *exc):
        signal.raise_signal(signal.SIGTERM)
        super().__exit__(*exc)

def run():
    [listening] = Path(sys.argv[1], "run").glob("*.sock")
    print(listening.name, flush=True)
    signal.raise_signal(signal.SIGTERM)

server, shared = ModuleType("app.ui.server"), ModuleType("app.ui.shared")
server.run, shared.prepare = run, lambda: App(Settings(home=sys.argv[1]))
sys.modules["app.cli.search_listener"].SearchListener = Impatient
sys.modules |= {"app.ui.server": server, "app.ui.shared": shared}
runpy.run_module("app.cli.page_process", run_name="__main__")
"""


def test_a_page_that_sigterm_ends_leaves_no_socket(home: Path) -> None:
    """It ends by the signal all the same, which who started it sees. A second comes meanwhile."""
    page = subprocess.run(
        [sys.executable, "-c", PAGE, str(home)], cwd=REPO, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert page.returncode == -signal.SIGTERM, page.stderr
    assert page.stdout.endswith(".sock\n")
    assert list((home / "run").glob("*.sock")) == []
