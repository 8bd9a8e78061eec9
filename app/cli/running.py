"""Lets a page or an API that runs answer `lookalike search`, so that nothing has to be loaded.

Each of them listens on a Unix socket in the home folder (`search_listener.py`). It answers only a
command of the same user with the same code and the same settings; in all other cases the command
answers by itself. This module imports little, because it has to be fast.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import stat
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

import app
from app.errors import LookalikeError

FOLDER = "run"
"""Folder of the sockets in the home folder; only its owner may enter it."""

MAX_ADDRESS = 100
"""Bytes of the path of a socket; systems allow 104 or 108."""

ACCEPT_S = 1.0
"""Seconds in which a process must accept a command; else it is passed over."""

BEAT_S = 1.0
"""Seconds after which a process that still searches tells the command so."""

SILENCE_S = 5.0
"""Seconds without a message after which the command searches by itself."""

WORKING = {"working": True}
"""Sent by a process that has accepted a command and has no answer yet."""

Photos = Mapping[str, Sequence[bytes]]


class Incomplete(Exception):
    """The other side closed the connection, or sent something else."""


def answers(options: Mapping[str, Any], photos: Photos) -> bool:
    """Whether a running process has answered the command; its output is then printed.

    Raises LookalikeError with the message of the process, if that is its answer.
    """
    answer = next(filter(None, (_ask(each, options, photos) for each in _sockets())), None)
    if answer is None:
        return False
    if "error" in answer:
        raise LookalikeError(answer["error"])
    click.echo(answer["out"], nl=False)
    click.echo(answer["err"], nl=False, err=True)
    return True


def _ask(address: Path, options: Mapping[str, Any], photos: Photos) -> dict[str, str] | None:
    """The answer of the process behind a socket: `error`, or `out` and `err`. None without one."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ACCEPT_S)
            connection.connect(str(address))
            if not is_own_user(connection):
                return None
            send(connection, _header(options, photos))
            if receive(connection) != WORKING:
                return None
            connection.settimeout(SILENCE_S)
            for contents in photos.values():
                for each in contents:
                    connection.sendall(each)
            while (answer := receive(connection)) == WORKING:
                pass
    except ConnectionRefusedError:
        address.unlink(missing_ok=True)  # the process was ended by a signal
        return None
    except (OSError, Incomplete):
        return None
    complete = answer.keys() in ({"error"}, {"out", "err"})
    return answer if complete and all(isinstance(each, str) for each in answer.values()) else None


def _header(options: Mapping[str, Any], photos: Photos) -> dict[str, Any]:
    """What a process has to know of a command before its photos."""
    return {
        "identity": identity(),
        "options": dict(options),
        "photos": {name: [len(each) for each in contents] for name, contents in photos.items()},
        "columns": shutil.get_terminal_size().columns if sys.stdout.isatty() else None,
        "plain": "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb",
    }


def _sockets() -> list[Path]:
    """The sockets of running processes, the newest first."""
    try:
        folder = home() / FOLDER
        if not is_private(folder):
            return []
        found = [(each.stat().st_mtime, each) for each in folder.glob("*.sock")]
    except (OSError, RuntimeError):  # a setting that the command itself refuses
        return []
    return [path for _, path in sorted(found, reverse=True)]


def home() -> Path:
    """The home folder, as `Settings.home`. Raises RuntimeError for a user who does not exist."""
    if named := os.environ.get("LOOKALIKE_HOME"):
        return Path(named).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("lookalike").absolute()


def is_private(folder: Path) -> bool:
    """Whether this user owns a folder and no other user may enter it. Raises OSError."""
    told = folder.lstat()
    return stat.S_ISDIR(told.st_mode) and told.st_uid == os.getuid() and not told.st_mode & 0o077


def is_own_user(connection: socket.socket) -> bool:
    """Whether the other side is a process of this user; where the system does not tell, the folder
    alone keeps others out."""
    if sys.platform != "linux":
        return True
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", told)[1] == os.getuid())


def identity() -> str:
    """A digest of the code and of the settings, which are environment variables.

    HOME counts because libpq reads files there, and the current folder where a setting is a path
    that begins in it.
    """
    written = [
        (str(path), file.st_mtime_ns, file.st_size)
        for path in Path(app.__file__).parent.rglob("*.py") if (file := path.stat())
    ]  # fmt: skip
    settings = sorted(
        (name, value) for name, value in os.environ.items()
        if name.upper().startswith(("LOOKALIKE_", "PG")) or name == "HOME"
    )  # fmt: skip
    relative = any(not Path(value).is_absolute() and _exists(value) for _, value in settings)
    folder = str(Path.cwd()) if relative else None
    told = [sys.executable, sys.version, sorted(written), settings, folder]
    return hashlib.sha256(repr(told).encode("utf-8", "surrogateescape")).hexdigest()


def _exists(value: str) -> bool:
    try:
        return bool(value) and Path(value).exists()
    except OSError:  # too long for a path
        return False


def send(connection: socket.socket, values: Mapping[str, Any]) -> None:
    """Send plain values as JSON. Raises OSError."""
    told = json.dumps(values).encode()
    connection.sendall(struct.pack(">I", len(told)) + told)


def receive(connection: socket.socket, max_bytes: int | None = None) -> dict[str, Any]:
    """Plain values, at most `max_bytes` as JSON (None: any number). Raises Incomplete and
    OSError."""
    (size,) = struct.unpack(">I", read(connection, 4))
    if max_bytes is not None and size > max_bytes:
        raise Incomplete
    try:
        told = json.loads(read(connection, size))
    except (ValueError, RecursionError) as exc:
        raise Incomplete from exc
    if not isinstance(told, dict):
        raise Incomplete
    return told


def read(connection: socket.socket, size: int) -> bytes:
    """So many bytes. Raises Incomplete and OSError."""
    content = bytearray()
    while len(content) < size:
        part = connection.recv(min(size - len(content), 1 << 20))
        if not part:
            raise Incomplete
        content += part
    return bytes(content)
