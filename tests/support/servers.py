"""PostgreSQL servers of a single test, which it may crash, restart, replicate, dump and restore.

Each is in a home of its own, which is deleted at the end of its `with`.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from app.db.embedded import binaries, os_user
from app.db.embedded import server as embedded_server

# The kernel keeps what a killed server wrote; commits are still synchronous.
UNSYNCED = {"fsync": "off", "shared_buffers": "32MB", "max_wal_size": "256MB"}


@contextmanager
def own_server(**options: str) -> Iterator[Path]:
    """The home of a server for one test, which may crash and restart it."""
    with _home() as home:
        copy_cluster(home)
        embedded_server.start(home, UNSYNCED | options)
        yield home


def copy_cluster(home: Path) -> None:
    """Fill `home` as the first start of its server would, in a tenth of the time.

    The cluster has an identifier of its own, so that index builds of another are not used with it.
    """
    home.mkdir(parents=True, exist_ok=True)
    data = home / "postgres"
    subprocess.run(["cp", "-a", _model_cluster() / "postgres", data], check=True)
    if os.geteuid() == 0:
        os_user.open_to_server_user(data, binaries.install_folder())
    with (data / "global" / "pg_control").open("r+b") as file:
        file.write(os.urandom(7))  # of the identifier; pg_resetwal writes it into the WAL, too
    binaries.run("pg_resetwal", "-f", "-D", str(data))


@cache
def _model_cluster() -> Path:
    """The home of a server that was started once, and stopped."""
    home = Path(tempfile.mkdtemp(prefix="lookalike-model-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    embedded_server.start(home, UNSYNCED)
    embedded_server.stop(home)
    return home


@contextmanager
def standby_of(primary: Path, **options: str) -> Iterator[Path]:
    """The home of a hot standby that follows the server of `primary`."""
    with _home() as home:
        _lend(home / "postgres")
        _base_backup(primary, home / "postgres")
        embedded_server.start(home, UNSYNCED | options)
        yield home


PASSWORD = "hunter2@/:%# or so"
USER = "shop keeper"


@dataclass(frozen=True)
class TcpServer:
    """A server that is reached over TCP and requires a password; USER is its superuser."""

    port: int

    def url(self, database: str = "postgres", password: str = PASSWORD, user: str = USER) -> str:
        """A URL with all special characters percent-encoded."""
        who, secret = quote(user, safe=""), quote(password, safe="")
        return f"postgresql://{who}:{secret}@127.0.0.1:{self.port}/{quote(database, safe='')}"


@contextmanager
def password_server() -> Iterator[TcpServer]:
    """A server from the binaries of the embedded server, made accessible to its OS user."""
    folder = Path(tempfile.mkdtemp(prefix="lookalike-tcp-"))
    (folder / "password").write_text(PASSWORD)
    data, port = folder / "data", free_port()
    lent: dict[str, Any] = {}
    if os.geteuid() == 0:
        os_user.create_server_user()
        os_user.open_to_server_user(data, binaries.install_folder())
        lent = {"user": os_user.SERVER_USER, "group": os_user.SERVER_USER}
        for path in (folder, folder / "password"):
            shutil.chown(path, os_user.SERVER_USER)

    def run(name: str, *words: str) -> None:
        command = [binaries.binary(name), "-D", data, *words]
        subprocess.run(command, cwd="/", stdout=subprocess.DEVNULL, check=True, **lent)

    run("initdb", "-A", "scram-sha-256", "-U", USER, "--no-sync", "-E", "UTF8",
        "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C",
        f"--pwfile={folder}/password")  # fmt: skip
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -F"
    run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield TcpServer(port)
    finally:
        run("pg_ctl", "-w", "-m", "immediate", "stop")
        shutil.rmtree(folder)


def free_port() -> int:
    """A TCP port of this machine that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def lent_folder() -> Iterator[Path]:
    """An empty folder that PostgreSQL's programs may write to."""
    with tempfile.TemporaryDirectory(prefix="lookalike-lent-") as name:
        _lend(Path(name) / "lent")
        yield Path(name) / "lent"


def start(home: Path, **options: str) -> str:
    """Start a server that was stopped or crashed; returns its URL."""
    return embedded_server.start(home, UNSYNCED | options)


def crash(home: Path) -> None:
    """Stop the server without a checkpoint, as after a power failure."""
    lock = home / "postgres" / "postmaster.pid"
    os.kill(int(lock.read_text().split("\n", 1)[0]), signal.SIGQUIT)
    wait_until(lambda: not lock.exists(), "the server does not stop")  # pg_ctl looks once in 0.1 s


def promote(home: Path) -> None:
    """Make a standby a primary."""
    binaries.run("pg_ctl", "-w", "-D", str(home / "postgres"), "promote")


def skip_transactions(home: Path, epochs: int) -> None:
    """Advance the transaction ids of a stopped server by `epochs` times 2^32."""
    binaries.run("pg_resetwal", "-e", str(epochs), "-D", str(home / "postgres"))


def dump(home: Path, file: Path) -> None:
    """pg_dump of the database of `home`."""
    binaries.run("pg_dump", "-Fc", "-f", str(file), embedded_server.url(home))


def restore(home: Path, file: Path) -> None:
    """pg_restore into the empty database of `home`; any error ends it."""
    url = embedded_server.url(home)
    # Roles are not in a dump; `lookalike migrate` grants the privileges again.
    binaries.run(
        "pg_restore", "--exit-on-error", "--no-owner", "--no-privileges", "-d", url, str(file)
    )


def ask(home: Path, question: str) -> Any:
    """The single value that a query to the server of `home` returns."""
    with psycopg.connect(embedded_server.url(home), autocommit=True) as connection:
        row = connection.execute(question).fetchone()  # type: ignore[call-overload]
    return row[0] if row else None


def alter_system(home: Path, statement: str) -> None:
    """Run an ALTER SYSTEM statement on a running server and reload its configuration."""
    with psycopg.connect(embedded_server.url(home), autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[call-overload]
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("SELECT pg_sleep(0.1)")


def catch_up(primary: Path, standby: Path) -> None:
    """Wait until the standby has replayed all commits of the primary."""
    _reach(primary, standby, "pg_last_wal_replay_lsn()")


def wait_until_received(primary: Path, standby: Path) -> None:
    """Wait until the standby has received all commits of the primary, replayed or not."""
    _reach(primary, standby, "pg_last_wal_receive_lsn()")


@contextmanager
def paused(primary: Path, standby: Path) -> Iterator[None]:
    """Pauses the standby's replay at the current position; on exit it catches up."""
    catch_up(primary, standby)
    ask(standby, "SELECT pg_wal_replay_pause() IS NULL")
    wait_until(
        lambda: ask(standby, "SELECT pg_get_wal_replay_pause_state() = 'paused'"),
        "the replay does not pause",
    )
    try:
        yield
    finally:
        ask(standby, "SELECT pg_wal_replay_resume() IS NULL")
        catch_up(primary, standby)


def _reach(primary: Path, standby: Path, position: str) -> None:
    # The message is flushed to disk, and with it all asynchronous commits.
    written = ask(primary, "SELECT pg_logical_emit_message(false, 'test', '', true)")
    question = f"SELECT {position} >= '{written}'"
    wait_until(lambda: ask(standby, question), "the standby does not catch up")


def wait_until(condition: Callable[[], object], otherwise: str, seconds: float = 300) -> None:
    """Wait until a condition holds; fails with the message `otherwise` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)


@contextmanager
def _home() -> Iterator[Path]:
    """A temporary home outside pytest's folder, which other users cannot enter."""
    home = Path(tempfile.mkdtemp(prefix="lookalike-own-"))
    try:
        yield home
    finally:
        if embedded_server.running(home):
            crash(home)  # the data is not needed any more
        shutil.rmtree(home, ignore_errors=True)


def _lend(folder: Path) -> None:
    """Create a folder owned by the OS user that PostgreSQL runs as."""
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os_user.create_server_user()
        os.chown(folder, os_user.server_uid(), -1)
        os_user.open_to_server_user(folder, binaries.install_folder())


def _base_backup(primary: Path, target: Path) -> None:
    """Copy a running server, with the settings (-R) that make the copy a standby.

    The copy includes the lock file of the socket, which is in the data folder.
    """
    binaries.run(
        "pg_basebackup", "-c", "fast", "-R", "-D", str(target),
        "-d", embedded_server.url(primary, "postgres"),
    )  # fmt: skip
    for lock in target.glob(".s.PGSQL.*"):
        lock.unlink()
