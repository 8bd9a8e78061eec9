"""The user PostgreSQL runs as: oneself, or where that is root, an account lent to the server.

PostgreSQL refuses to run as root. The account may enter the folders that lead to the data and to
the binaries, and no more than that.
"""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.errors import DatabaseUnavailable

SERVER_USER = "pgserver"


def subprocess_options() -> dict[str, Any]:
    """What `subprocess` needs to run a program as the server's user."""
    if os.geteuid() != 0:
        return {}
    return {"user": SERVER_USER, "group": SERVER_USER, "extra_groups": []}


def server_uid() -> int:
    return pwd.getpwnam(SERVER_USER).pw_uid if os.geteuid() == 0 else os.getuid()


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def open_to_server_user(data: Path, install: Path) -> None:
    """Let the server's user reach the data and run the binaries below `install`."""
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


def make_server_user() -> None:
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
