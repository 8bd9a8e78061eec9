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

ANSWER_S = 120.0
"""Seconds to wait for an answer before the command searches by itself."""

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
    if answer["error"] is not None:
        raise LookalikeError(answer["error"])
    click.echo(answer["out"], nl=False)
    click.echo(answer["err"], nl=False, err=True)
    return True


def _ask(address: Path, options: Mapping[str, Any], photos: Photos) -> dict[str, Any] | None:
    """The answer of the process behind a socket; None if there is none."""
    header = {
        "identity": identity(),
        "options": dict(options),
        "photos": {name: len(contents) for name, contents in photos.items()},
        "columns": shutil.get_terminal_size().columns if sys.stdout.isatty() else None,
        "plain": "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb",
    }
    contents = [each for own in photos.values() for each in own]
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_S)
            connection.connect(str(address))
            send(connection, header, contents)
            answer, _ = receive(connection)
    except ConnectionRefusedError:
        address.unlink(missing_ok=True)  # the process was ended by a signal
        return None
    except (OSError, Incomplete):
        return None
    return answer or None


def _sockets() -> list[Path]:
    """The sockets of running processes, the newest first."""
    folder = home() / FOLDER
    try:
        if not is_private(folder):
            return []
        found = [(each.stat().st_mtime, each) for each in folder.glob("*.sock")]
    except OSError:
        return []
    return [path for _, path in sorted(found, reverse=True)]


def home() -> Path:
    """The home folder, as `Settings.home`."""
    if named := os.environ.get("LOOKALIKE_HOME"):
        return Path(named).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("lookalike").absolute()


def is_private(folder: Path) -> bool:
    """Whether this user owns a folder and no other user may enter it. Raises OSError."""
    told = folder.lstat()
    return stat.S_ISDIR(told.st_mode) and told.st_uid == os.getuid() and not told.st_mode & 0o077


def identity() -> str:
    """A digest of the code and of the settings, which are environment variables."""
    written = [path.stat().st_mtime_ns for path in Path(app.__file__).parent.rglob("*.py")]
    settings = sorted(
        (name, value) for name, value in os.environ.items()
        if name.upper().startswith(("LOOKALIKE_", "PG"))
    )  # fmt: skip
    told = [sys.executable, sys.version, app.__file__, max(written), len(written), settings]
    return hashlib.sha256(repr(told).encode("utf-8", "surrogateescape")).hexdigest()


def send(connection: socket.socket, header: Mapping[str, Any], contents: Sequence[bytes]) -> None:
    """Send a message: plain values, and bytes. Raises OSError."""
    told = json.dumps({"header": header, "sizes": [len(each) for each in contents]}).encode()
    connection.sendall(struct.pack(">I", len(told)) + told)
    for each in contents:
        connection.sendall(each)


def receive(
    connection: socket.socket, *, max_header: int | None = None, max_bytes: int = 0
) -> tuple[dict[str, Any], list[bytes]]:
    """A message, whose plain values take at most `max_header` bytes as JSON (None: any number), and
    whose bytes are at most `max_bytes`. Raises Incomplete and OSError."""
    (size,) = struct.unpack(">I", _read(connection, 4))
    if max_header is not None and size > max_header:
        raise Incomplete
    told = json.loads(_read(connection, size))
    if sum(told["sizes"]) > max_bytes:
        raise Incomplete
    return told["header"], [_read(connection, each) for each in told["sizes"]]


def _read(connection: socket.socket, size: int) -> bytes:
    content = bytearray()
    while len(content) < size:
        part = connection.recv(min(size - len(content), 1 << 20))
        if not part:
            raise Incomplete
        content += part
    return bytes(content)
