"""The embedded server starts again after it was killed, and touches no data that is not its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.db.embedded import binaries
from app.db.embedded import server as embedded_server
from app.errors import DatabaseUnavailable, DatabaseUnsuitable
from support.embedded_servers import OTHER_USER, as_root, postmaster, scalar, spawn, start


def kill(home: Path) -> None:
    server = postmaster(home)
    server.kill()
    server.wait(300)


@pytest.mark.parametrize("after_s", [0.05, 0.3, 0.55])
def test_the_next_start_recovers_from_a_start_that_was_killed(home: Path, after_s: float) -> None:
    command = spawn(home)
    assert command.stdout is not None
    command.stdout.readline()
    time.sleep(after_s)
    os.killpg(command.pid, signal.SIGKILL)
    command.communicate(timeout=300)
    assert scalar(start(home), "SELECT 1") == 1


def test_a_killed_server_restarts_with_all_committed_data(used_home: Path) -> None:
    with psycopg.connect(start(used_home)) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    kill(used_home)
    assert scalar(start(used_home), "SELECT one FROM kept") == 1


def test_a_start_is_repeated_while_processes_of_a_killed_server_use_its_data(
    used_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([DatabaseUnavailable("the data are in use")])
    run = binaries.run

    def failing_once(program: str, *words: str, **options: Any) -> None:
        if words[-1] == "start" and (failure := next(failures, None)):
            raise failure
        run(program, *words, **options)

    monkeypatch.setattr(binaries, "run", failing_once)
    assert scalar(start(used_home), "SELECT 1") == 1 and not list(failures)


@pytest.fixture
def unrelated_process(used_home: Path) -> Iterator[Callable[[], int]]:
    """Starts an unrelated process of the user PostgreSQL runs as; returns its pid."""
    started: list[subprocess.Popen[bytes]] = []

    def make() -> int:
        user = (used_home / "postgres").stat().st_uid
        process_options = {"user": user} if os.geteuid() == 0 else {}
        started.append(subprocess.Popen(["sleep", "60"], cwd="/", **process_options))  # type: ignore[call-overload]
        return started[-1].pid

    yield make
    for process in started:
        process.kill()
        process.wait()


def test_a_killed_server_restarts_when_its_pid_was_reused(
    used_home: Path, unrelated_process: Callable[[], int]
) -> None:
    start(used_home)
    kill(used_home)
    pid_file = used_home / "postgres" / "postmaster.pid"
    rest = pid_file.read_text().split("\n", 1)[1]
    pid_file.write_text(f"{unrelated_process()}\n{rest}")
    assert scalar(start(used_home), "SELECT 1") == 1


def test_a_pid_of_an_unrelated_process_is_not_a_running_server(
    used_home: Path, unrelated_process: Callable[[], int]
) -> None:
    start(used_home)
    kill(used_home)
    (used_home / "postgres" / "postmaster.pid").write_text(f"{unrelated_process()}\n")
    assert not embedded_server.stop(used_home)


def test_a_server_that_died_while_writing_its_pid_file_restarts(used_home: Path) -> None:
    start(used_home)
    embedded_server.stop(used_home)
    (used_home / "postgres" / "postmaster.pid").touch(mode=0o600)
    assert scalar(start(used_home), "SELECT 1") == 1


def test_an_incomplete_cluster_is_initialised_again(home: Path) -> None:
    unfinished = home / "postgres.new"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    assert scalar(start(home), "SELECT 1") == 1


@pytest.mark.parametrize("version", ["16", None])
def test_a_data_folder_that_is_not_ours_is_left_unchanged(home: Path, version: str | None) -> None:
    data = home / "postgres"
    data.mkdir(parents=True)
    if version:
        (data / "PG_VERSION").write_text(f"{version}\n")
    expected = rf"not the data of PostgreSQL 18 \(found: {version or 'none'}\).*LOOKALIKE_HOME"
    with pytest.raises(DatabaseUnsuitable, match=expected):
        start(home)


@as_root
def test_root_does_not_take_over_the_data_of_a_user(used_home: Path) -> None:
    start(used_home)
    embedded_server.stop(used_home)
    shutil.chown(used_home / "postgres", OTHER_USER)
    with pytest.raises(DatabaseUnavailable, match=f"belongs to the user {OTHER_USER}"):
        start(used_home)
