"""Starts embedded servers in this process and in others, and finds their processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from app.db.embedded import server as embedded_server
from support.paths import REPO

NO_FSYNC = {"fsync": "off"}  # the kernel keeps what a killed process wrote
START = f"""
from app import config
from app.db.embedded import server as embedded_server
home = config.Settings().home
print("at it", flush=True)
print(embedded_server.start(home, {NO_FSYNC}), flush=True)
"""

OTHER_USER = "nobody"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as another user")


def environment(home: Path, **more: str) -> dict[str, str]:
    return os.environ | {"LOOKALIKE_HOME": str(home)} | more


def spawn(home: Path, code: str = START, **more: Any) -> subprocess.Popen[str]:
    """Another process that starts the server of `home`, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=REPO,
        env=environment(home, **more.pop("environment", {})),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **more,
    )


def start(home: Path) -> str:
    return embedded_server.start(home, NO_FSYNC)


def scalar(url: str, question: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(question).fetchone()
    return row and row[0]


def start_time(url: str) -> Any:
    return scalar(url, "SELECT pg_postmaster_start_time()")


def postmaster(home: Path) -> psutil.Process:
    pid_file = home / "postgres" / "postmaster.pid"
    return psutil.Process(int(pid_file.read_text().split("\n", 1)[0]))
