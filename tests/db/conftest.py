"""Fixtures of the tests of the database."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from app.config import Settings
from app.db.embedded import server as embedded_server
from app.db.engine import make_engine
from support.passwords import SECRET
from support.servers import TcpServer, copy_cluster, crash, password_server


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


@pytest.fixture(scope="session")
def tcp() -> Iterator[TcpServer]:
    with password_server() as server, psycopg.connect(server.url(), autocommit=True) as admin:
        literal = psycopg.sql.Literal(SECRET).as_string(admin)
        admin.execute("CREATE EXTENSION vector")
        admin.execute(f"CREATE ROLE canary SUPERUSER LOGIN PASSWORD {literal}")
        yield server


@pytest.fixture
def engines() -> Iterator[Callable[..., Engine]]:
    created: list[Engine] = []

    def make(url: str, how: Callable[[Settings], Engine] = make_engine, **settings: Any) -> Engine:
        created.append(how(Settings(database_url=url, **settings)))
        return created[-1]

    yield make
    for engine in created:
        engine.dispose()
