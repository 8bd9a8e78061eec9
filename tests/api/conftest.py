"""A small catalogue served by the HTTP API, shared by the tests of a module that only read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.bootstrap import App
from app.config import Settings
from support.api_client import ApiClient, api_served
from support.colours import choose_colours
from support.shop import add, numbered

PRODUCTS = 60


def fill(app: App) -> None:
    """60 products with a photo each, of two brands."""
    add(app, numbered(PRODUCTS // 2), brand="Kestrel", category="lamp", year=2019)
    add(app, numbered(PRODUCTS // 2, PRODUCTS // 2), brand="Wren", category="mug")
    app.indexer.rebuild()


@pytest.fixture(scope="module")
def shared_app(
    shared_filled_database: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[App]:
    home: Path = tmp_path_factory.mktemp("api")
    settings = Settings(home=home, database_url=shared_filled_database(fill))
    with App(settings, choose=choose_colours) as app:
        yield app


@pytest.fixture(scope="module")
def client(shared_app: App) -> Iterator[ApiClient]:
    """A client of a server on a loopback address without any key."""
    with api_served(shared_app) as client:
        yield client
