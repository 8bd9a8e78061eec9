"""A hot standby of the server of the tests, and the services on its copy of a test's database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from app.bootstrap import App
from app.config import Settings
from app.db.embedded import server as embedded_server
from support import servers
from support.colours import choose_colours


@pytest.fixture(scope="session")
def standby_home(server_home: Path, template: str) -> Iterator[Path]:
    """The home of a standby that follows the server of the tests until the last test promotes it.

    So it replays nothing of later tests of this process.
    """
    with servers.standby_of(server_home) as home:
        yield home


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The primary samples no queries, so that it writes only what the test writes."""
    return settings.model_copy(update={"sample_queries": False})


@pytest.fixture
def replica_settings(settings: Settings, server_home: Path, standby_home: Path) -> Settings:
    """The same home and so the same index folder, on another server."""
    name = str(make_url(str(settings.database_url)).database)
    servers.catch_up(server_home, standby_home)
    url = embedded_server.url(standby_home, name)
    return settings.model_copy(update={"database_url": url, "sample_queries": True})


@pytest.fixture
def replica(replica_settings: Settings) -> Iterator[App]:
    """All services on the standby's copy of this test's database."""
    with App(replica_settings, choose=choose_colours) as app:
        yield app
