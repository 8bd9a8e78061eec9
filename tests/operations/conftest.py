"""Fixtures of the tests of operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.db.embedded import server as embedded_server
from app.operations.backup import backup
from support.colours import choose_colours, photo
from support.fallback import build_pgvector_index
from support.shop import add, numbered


@pytest.fixture
def shop(app: App) -> App:
    """Six products with a photo each, with statistics and identity keys."""
    add(app, numbered(6), brand="Kestrel", category="lamp")
    return app


@pytest.fixture
def indexed(shop: App) -> App:
    """The same with an index."""
    shop.indexer.rebuild()
    return shop


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The folder of the six original photos."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(6):
        (folder / f"{seed}.png").write_bytes(photo(seed))
    return folder


@pytest.fixture
def elsewhere(new_database: Callable[[str | None], str], tmp_path: Path) -> Iterator[App]:
    """Services on a new, empty database, with a separate folder of index files."""
    settings = Settings(home=tmp_path / "elsewhere", database_url=new_database(None))
    with App(settings, choose=choose_colours) as app:
        yield app


@pytest.fixture(scope="session")
def stored(server_home: Path, template: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of a catalogue of twelve products with both indexes. Read-only."""
    with psycopg.connect(embedded_server.url(server_home, "postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE backed_up TEMPLATE {template}")
    folder = tmp_path_factory.mktemp("backups")
    url = embedded_server.url(server_home, "backed_up")
    with App(Settings(home=folder / "home", database_url=url), choose=choose_colours) as app:
        add(app, numbered(12))
        app.indexer.rebuild()
        build_pgvector_index(app)
        backup(app.engine, folder / "stored")
    with psycopg.connect(embedded_server.url(server_home, "postgres"), autocommit=True) as admin:
        admin.execute("DROP DATABASE backed_up WITH (FORCE)")
    return folder / "stored"
