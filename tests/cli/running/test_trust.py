"""Which process a command asks, and what it believes: users, settings, code and messages."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.bootstrap import App
from app.cli import running
from app.cli.search_listener import SearchListener
from support.cli_runs import RunPrinted


def test_another_setting_is_not_answered(
    listener: SearchListener,
    search: RunPrinted,
    by_itself: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOOKALIKE_MAX_K", "1")
    search("--sku", "A", "--k", "1")
    assert by_itself == ["A"]


def test_a_folder_that_others_may_enter_is_not_trusted(
    listener: SearchListener, search: RunPrinted, by_itself: list[str], home: Path
) -> None:
    (home / running.FOLDER).chmod(0o755)
    search("--sku", "A")
    assert by_itself == ["A"]


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
    search: RunPrinted,
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
    listener: SearchListener,
    search: RunPrinted,
    by_itself: list[str],
    monkeypatch: pytest.MonkeyPatch,
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
