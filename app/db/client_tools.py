"""PostgreSQL's own clients, pg_dump and pg_restore, run against the server of an engine.

The password travels in the environment of the child alone: a command line is there for everybody
on the machine to read.
"""

from __future__ import annotations

import os
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
from app.errors import BadInput, LookalikeError
from app.types import ProgressCallback

PROGRESS_INTERVAL_S = 10.0
"""Seconds between two words of what the program is doing."""

TERMINATE_TIMEOUT_S = 10.0
"""Seconds a program that was told to stop has to tell the server so."""


class ClientFailed(LookalikeError):
    """A program of PostgreSQL failed."""


def run(
    engine: Engine, program: str, *arguments: str, notify: ProgressCallback = lambda message: None
) -> None:
    """Run a program against the engine's database; it never asks for a password.

    Raises ClientFailed with what the program said, BadInput for an address that would show a
    secret. Whoever interrupts this ends the program too.
    """
    address, environment = _address(engine)
    command = [str(binaries.binary(program)), *arguments]
    command += ["--verbose", "--no-password", f"--dbname={address}"]
    with tempfile.TemporaryFile() as said, _running(command, environment, said) as child:
        while (code := _wait(child)) is None:
            notify(_doing(said))
        if code != 0:
            raise ClientFailed(_why(program, code, _lines(said)))


def output(program: str, *arguments: str) -> str:
    """What a program that needs no server prints. Raises ClientFailed."""
    command = [str(binaries.binary(program)), *arguments]
    done = subprocess.run(
        command, env=_plain(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ClientFailed(_why(program, done.returncode, done.stderr.splitlines()))
    return done.stdout


def _address(engine: Engine) -> tuple[str, dict[str, str]]:
    """The engine's address as libpq takes it, and the environment that holds the password."""
    given = connection_parameters(engine)
    password = given.pop("password", None)
    if shown := [name for name in SECRETS if name in given]:  # no variable holds these
        raise BadInput(
            f"The parameter {shown[0]} of the address would be seen by everybody on this machine. "
            "Leave it out, and use a key without a passphrase for this command."
        )
    environment = _plain() | ({"PGPASSWORD": password} if password is not None else {})
    return make_conninfo("", **given), environment


def _plain() -> dict[str, str]:
    """Our own environment, with messages that can be told apart."""
    return dict(os.environ) | {"LC_ALL": "C"}


@contextmanager
def _running(
    command: list[str], environment: dict[str, str], said: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said
    )
    try:
        yield child
    finally:
        _stop(child)


def _stop(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(TERMINATE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _wait(child: subprocess.Popen[bytes]) -> int | None:
    try:
        return child.wait(PROGRESS_INTERVAL_S)
    except subprocess.TimeoutExpired:
        return None


def _lines(said: IO[bytes]) -> list[str]:
    # With an offset, for the child writes to the same open file.
    size = os.fstat(said.fileno()).st_size
    return os.pread(said.fileno(), size, 0).decode(errors="replace").splitlines()


def _doing(said: IO[bytes]) -> str:
    """The last thing the program said, without its name."""
    lines = _lines(said)
    return lines[-1].partition(": ")[2] if lines else "connecting"


def _why(program: str, code: int, lines: list[str]) -> str:
    """What a program said that failed; of a verbose one only the errors and what explains them."""
    if code < 0:
        return f"{program} was ended by {signal.Signals(-code).name}."
    telling = (" error: ", " detail: ", " hint: ", "ERROR: ", "DETAIL: ", "HINT: ")
    errors = [line for line in lines if any(word in line for word in telling)] or lines[-3:]
    return " ".join(" ".join(errors).split()) or f"{program} ended with code {code}."
