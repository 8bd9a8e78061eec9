"""The OS user that PostgreSQL runs as: the current user or, for root, the system user `pgserver`.

PostgreSQL refuses to run as root. The folders above the data and the programs become enterable, not
readable, for other users.
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

USER_EXISTS = 9
"""Exit code of useradd when another process created the user first."""


def subprocess_options() -> dict[str, Any]:
    """Arguments of `subprocess.run` that run a program as the server's user."""
    if os.geteuid() != 0:
        return {}
    return {"user": SERVER_USER, "group": SERVER_USER, "extra_groups": []}


def server_uid() -> int:
    """The numeric id of the server's user."""
    return pwd.getpwnam(SERVER_USER).pw_uid if os.geteuid() == 0 else os.getuid()


def user_name(uid: int) -> str:
    """The name of a user; the number if it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def open_to_server_user(data: Path, install: Path) -> None:
    """Let the server's user enter the data folder and run the programs below `install`."""
    for folder in {*data.resolve().parents, *install.resolve().parents}:
        _allow(folder, stat.S_IXOTH)
    for path in (install, *install.rglob("*")):
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            _allow(path, stat.S_IROTH | (stat.S_IXOTH if executable else 0))


def _allow(path: Path, bits: int) -> None:
    mode = path.stat().st_mode
    if mode & bits != bits:
        path.chmod(mode | bits)


def create_server_user() -> None:
    """Create the system user without a login, if it does not exist. Raises DatabaseUnavailable."""
    with suppress(KeyError):
        pwd.getpwnam(SERVER_USER)
        return
    completed = subprocess.run(
        ["useradd", "--system", "--user-group", "--no-create-home", SERVER_USER],
        capture_output=True, check=False, text=True,
    )  # fmt: skip
    if completed.returncode not in (0, USER_EXISTS):
        raise DatabaseUnavailable(
            "PostgreSQL does not run as root, and a system user for it could not be created: "
            f"{completed.stderr.strip()}. Run as another user, or set LOOKALIKE_DATABASE_URL."
        )
