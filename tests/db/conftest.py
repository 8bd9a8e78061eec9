"""Fixtures of the tests of the database."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.db.embedded import server as embedded_server
from support.servers import copy_cluster, crash


@pytest.fixture
def home() -> Iterator[Path]:
    """A home for one server, outside pytest's folder, which other users cannot enter."""
    folder = Path(tempfile.mkdtemp(prefix="lookalike-home-"))
    yield folder / "home"
    if embedded_server.running(folder / "home"):
        crash(folder / "home")
    shutil.rmtree(folder)


@pytest.fixture
def used_home(home: Path) -> Path:
    """A home whose server was started before, and stopped."""
    copy_cluster(home)
    return home
