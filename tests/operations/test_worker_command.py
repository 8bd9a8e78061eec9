"""`lookalike worker` as a process: signals, and its port of metrics."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from support.shop import add, numbered
from support.worker_threads import SOON_S, wait_until

LOOKALIKE = Path(sys.executable).with_name("lookalike")


BOOT_S = 300.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def command(settings: Settings, log: Path, **more: object) -> Iterator[tuple[Any, str]]:
    """`lookalike worker` as a process; yields it and the address of its metrics."""
    port = free_port()
    named: dict[str, object] = {
        "home": settings.home, "database_url": settings.database_url,
        "worker_metrics_port": port, "worker_look_s": 0.05,
    }  # fmt: skip
    words = {f"LOOKALIKE_{name.upper()}": str(value) for name, value in (named | more).items()}
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", "from app.cli import main; main()", "worker"],
            env=os.environ | words, stdout=file, stderr=file,
        )  # fmt: skip
        try:
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=300) as answer:
            return bool(answer.status == 200)
    except (URLError, ConnectionError, TimeoutError):
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_waiting_worker_at_once(
    app: App, settings: Settings, sql: psycopg.Connection, tmp_path: Path, number: int
) -> None:
    add(app, numbered(5))
    log = tmp_path / "log"
    with command(settings, log, worker_poll_s=3600) as (process, address):
        wait_until(lambda: answers(f"{address}/healthz"), BOOT_S)
        wait_until(
            lambda: sql.execute("SELECT FROM index_build WHERE state = 'published'").rowcount > 0
        )
        time.sleep(0.2)
        process.send_signal(number)
        assert process.wait(SOON_S) == 0, log.read_text()  # long before the next poll
    assert "The worker has stopped." in log.read_text()
    assert "Traceback" not in log.read_text()


def test_a_signal_ends_a_running_build(
    app: App, settings: Settings, sql: psycopg.Connection, tmp_path: Path
) -> None:
    """The build waits for a lock, so that it runs until the test ends it."""
    add(app, numbered(5))
    log = tmp_path / "log"
    with (
        psycopg.connect(str(settings.database_url)) as gate,
        command(settings, log) as (process, _),
    ):
        gate.execute("LOCK TABLE query_sample IN ACCESS EXCLUSIVE MODE")
        held = "SELECT FROM index_build WHERE state = 'building'"
        wait_until(lambda: sql.execute(held).rowcount == 1, BOOT_S)
        waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'" \
            " AND datname = current_database()"  # fmt: skip
        wait_until(lambda: sql.execute(waiting).rowcount == 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(SOON_S) == 0, log.read_text()
        assert sql.execute("SELECT state, reason FROM index_build").fetchall() == [
            ("rejected", "stopped")
        ]
        assert sql.execute(waiting).rowcount == 0, "the statement was cancelled"
    assert list(settings.index_folder.glob("*")) == []
    assert app.indexer.rebuild().state == "published"


def test_a_port_in_use_is_an_error_message(settings: Settings, app: App, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with command(settings, log, worker_metrics_port=port) as (process, _):
            assert process.wait(BOOT_S) == 1
    assert f"port {port}" in log.read_text() and "Traceback" not in log.read_text()
