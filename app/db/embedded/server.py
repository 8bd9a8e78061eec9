"""Starts and stops the embedded PostgreSQL server: one per home folder, shared by all processes.

The server listens on a Unix socket in a folder that only its user may enter, trusts every
connection, and keeps running until `stop`, also after the process that started it has ended.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg

from app.db.embedded import binaries, os_user
from app.errors import DatabaseUnavailable, DatabaseUnsuitable

DATABASE = "lookalike"
PORT = 5432
"""Part of the socket's name. Fixed, because PGPORT may differ between the processes that share a
server."""

START_TIMEOUT_S = 120
"""Seconds to wait for a start, with recovery, or a stop."""

STALE_TIMEOUT_S = 10
"""Seconds to retry a start while processes of a killed server still use its data."""

SOCKET_PATH_LIMIT = 100
"""Maximum path of a socket in bytes, with the file name; Linux allows 107, other systems 103."""

OPTIONS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "512MB",
    "max_wal_size": "4GB",
    "jit": "off",
}


def start(home: Path, options: dict[str, str] | None = None) -> str:
    """Start the server of `home` unless it runs, and return the URL of its database.

    `options` are further settings of the server. Safe to call from several processes at once: the
    first one creates and starts the server. Raises DatabaseUnavailable and DatabaseUnsuitable.
    """
    data = _data(home)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _locked(home):
            _initialise(data)
            if not _answers(data):
                _launch(data, OPTIONS | (options or {}))
            _create_database(data)
    except OSError as exc:
        raise _unusable(home, exc.strerror or str(exc)) from exc
    return url(home)


def stop(home: Path) -> bool:
    """Stop the server of `home`; False if it was not running."""
    data = _data(home)
    if not _alive(data):
        return False
    with _locked(home):
        if not _alive(data):
            return False
        binaries.run(
            "pg_ctl", "-w", "-t", str(START_TIMEOUT_S), "-m", "fast", "-D", str(data), "stop"
        )
    if (sockets := _socket_folder(data)) != data:
        with suppress(OSError):
            sockets.rmdir()
    return True


def running(home: Path) -> bool:
    """Whether a server runs on the data of `home`."""
    return _alive(_data(home))


def url(home: Path, database: str = DATABASE) -> str:
    """The URL of the server of `home`, as psql accepts it."""
    host = quote(str(_socket_folder(_data(home))), safe="")
    return f"postgresql://postgres@/{database}?host={host}&port={PORT}"


def _data(home: Path) -> Path:
    """The data folder without symbolic links, so that all processes use the same path."""
    try:
        return home.resolve() / "postgres"
    except (OSError, RuntimeError) as exc:  # a loop of symbolic links
        raise _unusable(home, str(exc)) from exc


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Exclude other processes that start or stop the server of `home`."""
    with (home / "postgres.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _initialise(data: Path) -> None:
    """Create the database cluster under another name and rename it, so that an incomplete one is
    never started."""
    version = data / "PG_VERSION"
    if data.exists():
        major = version.read_text().strip() if version.exists() else "none"
        if major != str(binaries.MAJOR):
            raise DatabaseUnsuitable(
                f"{data} is not the data of PostgreSQL {binaries.MAJOR} (found: {major}). "
                "Move it away, or choose another folder with LOOKALIKE_HOME."
            )
        return
    _check_name(data)
    draft = data.with_name("postgres.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os_user.create_server_user()
        os.chown(draft, os_user.server_uid(), -1)
        os_user.open_to_server_user(draft, binaries.install_folder())
    # The built-in locale is the same on every system, whatever locales are installed.
    binaries.run(
        "initdb", "--auth=trust", "--encoding=UTF8", "--locale-provider=builtin", "--locale=C",
        "--builtin-locale=C.UTF-8", "--username=postgres", "-D", str(draft),
    )  # fmt: skip
    draft.rename(data)


def _check_name(data: Path) -> None:
    """Reject characters that a shell interprets: pg_ctl passes the path to one in double quotes."""
    unsafe = re.search(r'["$`\\\x00-\x1f]', str(data))
    if unsafe:
        raise _unusable(
            data.parent, f"PostgreSQL does not start in a folder with {unsafe[0]!r} in its path"
        )


def _unusable(home: Path, reason: str) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"The embedded database cannot be stored in {home}: {reason}. "
        "Choose another folder with LOOKALIKE_HOME."
    )


def _launch(data: Path, options: dict[str, str]) -> None:
    _check_owner(data)
    _replace_recycled_pid(data)
    sockets = _socket_folder(data)
    if sockets != data:
        _make_private(sockets)
    settings = options | {"unix_socket_directories": shlex.quote(str(sockets))}
    switches = " ".join(f"-c {name}={value}" for name, value in settings.items())
    log = data / "server.log"
    arguments = ("-w", "-t", str(START_TIMEOUT_S), "-l", str(log), "-o", switches, "-D", str(data))
    deadline = time.monotonic() + STALE_TIMEOUT_S
    while True:
        try:
            binaries.run("pg_ctl", *arguments, "start", log=log)
            break
        except DatabaseUnavailable:
            # A start that was killed may have left a server that has just written its pid.
            if _answers(data):
                return
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    if not _answers(data):
        raise DatabaseUnavailable(f"The embedded database started but does not answer; see {log}.")


def _check_owner(data: Path) -> None:
    """Raise DatabaseUnavailable if the data belong to another user than the one that would run the
    server."""
    if os.geteuid() == 0:
        os_user.create_server_user()
        os_user.open_to_server_user(data, binaries.install_folder())
    uid, server_uid = data.stat().st_uid, os_user.server_uid()
    if uid != server_uid:
        owner, runner = os_user.user_name(uid), os_user.user_name(server_uid)
        raise DatabaseUnavailable(
            f"{data} belongs to the user {owner}, and PostgreSQL would run as {runner}. Run this "
            f"as {owner}, or choose another folder with LOOKALIKE_HOME."
        )


def _replace_recycled_pid(data: Path) -> None:
    """Write our own process id into the pid file if another process has that of a crashed server.

    PostgreSQL takes any process of its user with this id for a running server, except the process
    that starts it. The rest of the file stays: with it PostgreSQL finds remaining processes of the
    old server that still write.
    """
    file = data / "postmaster.pid"
    if not file.exists() or _alive(data):
        return
    pid, _, rest = file.read_text().partition("\n")
    if not pid:
        file.unlink()  # the server died while it wrote the file
    elif pid.isdecimal() and psutil.pid_exists(int(pid)):
        file.write_text(f"{os.getpid()}\n{rest}")


def _socket_folder(data: Path) -> Path:
    """The data folder; if its path is too long or has special characters, a folder in /tmp."""
    plain = re.fullmatch(r"[A-Za-z0-9/._-]+", str(data))
    if plain and len(os.fsencode(data / ".s.PGSQL.5432")) <= SOCKET_PATH_LIMIT:
        return data
    name = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    return Path("/tmp") / f"lookalike-{name}"  # not TMPDIR, which differs between processes


def _make_private(folder: Path) -> None:
    """Create the folder, or raise DatabaseUnavailable if another user created it or may enter it.

    In /tmp only the owner of a folder may rename or remove it, so its owner stays the same after
    this check.
    """
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    ours = status.st_uid in (os.geteuid(), os_user.server_uid())
    if not ours or not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o077:
        raise DatabaseUnavailable(f"{folder} is not private to this user; remove it and try again.")
    if status.st_uid != os_user.server_uid():
        os.chown(folder, os_user.server_uid(), -1, follow_symlinks=False)


def _alive(data: Path) -> bool:
    """Whether the process in the pid file is a server on this folder."""
    try:
        pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
        command = psutil.Process(pid).cmdline()
    except (OSError, ValueError, psutil.Error):
        return False
    return str(data) in command


def _answers(data: Path) -> bool:
    """Whether the server runs and accepts connections; waits while it recovers from a crash."""
    deadline = time.monotonic() + START_TIMEOUT_S
    # Never connect to a socket without our server: in /tmp it could be that of another user.
    while _alive(data) and time.monotonic() < deadline:
        try:
            psycopg.connect(url(data.parent, "postgres"), connect_timeout=5).close()
            return True
        except psycopg.OperationalError:
            time.sleep(0.1)
    return False


EXISTING = "SELECT FROM pg_database WHERE datname = %s"


def _create_database(data: Path) -> None:
    """Create the database unless it exists, with the built-in locale of the cluster."""
    with psycopg.connect(url(data.parent, "postgres"), autocommit=True) as connection:
        if connection.execute(EXISTING, [DATABASE]).fetchone() is None:
            # A start that was killed may have asked for it: the server goes on without its client.
            with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                connection.execute(
                    f"CREATE DATABASE {DATABASE} TEMPLATE template0 ENCODING 'UTF8'"
                    " LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'"
                )
