"""PgBouncer in transaction mode in front of a server of the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from app.db.embedded import os_user, server
from support.servers import free_port, wait_until

CONFIGURATION = """[databases]
* = host={host} port={port} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
# Settings of the session, which this mode cannot keep, are left to the server.
ignore_startup_parameters = options,extra_float_digits
"""


def program() -> str:
    """The path of pgbouncer; without it the test is skipped, but not in CI."""
    found = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if found is None:
        reason = "pgbouncer is not installed (Debian: the package pgbouncer)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@contextmanager
def pooled(home: Path, *, size: int = 2) -> Iterator[str]:
    """The URL of the server of `home` through a pooler with `size` connections a database."""
    command, listen = program(), free_port()
    url = make_url(server.url(home))
    with tempfile.TemporaryDirectory(prefix="lookalike-pooler-") as name:
        file = Path(name) / "pgbouncer.ini"
        file.write_text(
            CONFIGURATION.format(
                host=url.query["host"], port=url.query["port"], listen=listen, size=size
            )
        )
        lent = {}
        if os.geteuid() == 0:  # it does not run as root, and the server's socket has one user
            shutil.chown(name, os_user.SERVER_USER)
            lent = {"user": os_user.SERVER_USER, "group": os_user.SERVER_USER}
        process = subprocess.Popen(
            [command, "-q", str(file)], stderr=subprocess.DEVNULL, cwd="/", **lent
        )
        try:
            through = f"postgresql://postgres@127.0.0.1:{listen}/{url.database}"
            wait_until(lambda: _answers(through), "the pooler does not answer")
            yield through
        finally:
            process.terminate()
            process.wait()


def _answers(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=300) as connection:
            connection.execute("SELECT 1")
        return True
    except psycopg.Error:
        return False
