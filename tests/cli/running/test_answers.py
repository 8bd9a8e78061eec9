"""`lookalike search` is answered by a process of the same user, code and settings that runs."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Mapping
from pathlib import Path

import psycopg
import pytest
from pydantic import ValidationError

from app.bootstrap import App
from app.cli import running
from app.cli import search as search_command
from app.cli.search_listener import SearchListener
from app.errors import DatabaseUnavailable, LookalikeError, UnknownProduct
from app.search.vector_cache import VectorCache
from app.types import Query, SearchResult
from support.cli_runs import RunPrinted
from support.colours import photo
from support.concurrency import wait_until


@pytest.mark.parametrize(
    "words",
    [("--sku", "A"), ("--sku", "A", "--k", "1", "--filter", "brand=café néo", "--facets")],
)
def test_it_prints_what_a_command_prints_by_itself(
    own: App, search: RunPrinted, by_itself: list[str], words: tuple[str, ...]
) -> None:
    expected = search(*words)
    assert by_itself == ["A"] and "Café Néo" in expected
    with SearchListener(own):
        assert search(*words) == expected
    assert by_itself == ["A"]


def test_a_photo_is_sent_along(
    listener: SearchListener, search: RunPrinted, by_itself: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "photo.png"
    file.write_bytes(photo(2))
    found = json.loads(search(str(file), "--json", "--k", "1", "--no-fold"))
    assert [match["sku"] for match in found["matches"]] == ["B"] and by_itself == []


def test_an_error_is_that_of_the_command(
    listener: SearchListener, search: RunPrinted, by_itself: list[str]
) -> None:
    with pytest.raises(Exception, match="nobody") as told:
        search("--sku", "nobody")
    assert by_itself == []
    listener.__exit__(None, None, None)
    with pytest.raises(UnknownProduct) as expected:
        search("--sku", "nobody")
    assert str(told.value) == str(expected.value)


def test_a_process_without_a_free_place_is_not_waited_for(
    listener: SearchListener, own: App, search: RunPrinted, by_itself: list[str]
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
    search: RunPrinted,
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
    search: RunPrinted,
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


def test_a_home_folder_that_cannot_be_is_refused_by_the_command_itself(
    search: RunPrinted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_HOME", "~no such user/home")
    with pytest.raises(ValidationError, match="name another folder"):
        search("--sku", "A")
