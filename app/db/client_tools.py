"""Runs PostgreSQL's client programs, pg_dump and pg_restore, on the database of an engine.

The password is passed in the environment of the child process: all users of a machine can read its
command lines.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from psycopg.conninfo import make_conninfo
from sqlalchemy import Engine

from app.db.dsn import SECRETS
from app.db.embedded import binaries
from app.db.engine import connection_parameters
from app.errors import BadInput, DatabaseUnavailable, LookalikeError
from app.types import ProgressCallback

PROGRESS_INTERVAL_S = 10.0
"""Seconds between two progress messages."""

TERMINATE_TIMEOUT_S = 10.0
"""Seconds that a terminated program has to close its connection before it is killed."""

ERROR_MARKS = (" error: ", " detail: ", " hint: ", "ERROR: ", "DETAIL: ", "HINT: ")
"""Parts of the lines that explain a failure; with --verbose most lines report progress."""


class ClientFailed(LookalikeError):
    """A client program of PostgreSQL failed."""


def run(
    engine: Engine, program: str, *arguments: str, notify: ProgressCallback = lambda message: None
) -> None:
    """Run a program on the engine's database. It never asks for a password.

    `notify` gets the program's last line every PROGRESS_INTERVAL_S seconds. Raises ClientFailed
    with the program's error output, and BadInput for a URL with a secret that only the command line
    could pass. An exception in here, such as KeyboardInterrupt, terminates the program.
    """
    dsn, environment = _connection(engine)
    command = [_path(program), *arguments]
    command += ["--verbose", "--no-password", f"--dbname={dsn}"]
    with tempfile.TemporaryFile() as log, _started(command, environment, log) as process:
        while (code := _wait(process)) is None:
            notify(_last_message(log))
        if code != 0:
            raise ClientFailed(_failure(program, code, _lines(log)))


def output(program: str, *arguments: str) -> str:
    """The standard output of a program that needs no server. Raises ClientFailed."""
    command = [_path(program), *arguments]
    completed = subprocess.run(
        command,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if completed.returncode != 0:
        lines = completed.stderr.splitlines()
        raise ClientFailed(_failure(program, completed.returncode, lines))
    return completed.stdout


def _path(program: str) -> str:
    """The program of the embedded PostgreSQL; where that has no package, the one on PATH."""
    try:
        return str(binaries.binary(program))
    except DatabaseUnavailable:
        if (installed := shutil.which(program)) is None:
            raise
        return installed


def _connection(engine: Engine) -> tuple[str, dict[str, str]]:
    """The engine's connection string for libpq, and the environment with the password."""
    parameters = connection_parameters(engine)
    password = parameters.pop("password", None)
    if exposed := [name for name in SECRETS if name in parameters]:  # libpq has no variables
        raise BadInput(
            f"The parameter {exposed[0]} of the URL would be visible to all users of this machine "
            "in the process list. Leave it out, and use a key without a passphrase for this "
            "command."
        )
    environment = _environment() | ({"PGPASSWORD": password} if password is not None else {})
    return make_conninfo("", **parameters), environment


def _environment() -> dict[str, str]:
    """The environment of this process, with messages in English, which are parsed."""
    return dict(os.environ) | {"LC_ALL": "C"}


@contextmanager
def _started(
    command: list[str], environment: dict[str, str], log: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that writes its messages to `log`; terminated when the block ends."""
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
    )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(TERMINATE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    """The exit code; None if the program still runs after PROGRESS_INTERVAL_S seconds."""
    try:
        return process.wait(PROGRESS_INTERVAL_S)
    except subprocess.TimeoutExpired:
        return None


def _lines(log: IO[bytes]) -> list[str]:
    # pread leaves the file offset alone, which is shared with the child that writes.
    size = os.fstat(log.fileno()).st_size
    return os.pread(log.fileno(), size, 0).decode(errors="replace").splitlines()


def _last_message(log: IO[bytes]) -> str:
    """The last line of the program without its name."""
    lines = _lines(log)
    return lines[-1].partition(": ")[2] if lines else "connecting"


def _failure(program: str, code: int, lines: list[str]) -> str:
    """Why a program failed: its error lines, or its last three lines if it has none."""
    if code < 0:
        return f"{program} was terminated by {signal.Signals(-code).name}."
    errors = [line for line in lines if any(mark in line for mark in ERROR_MARKS)] or lines[-3:]
    return " ".join(" ".join(errors).split()) or f"{program} exited with code {code}."
