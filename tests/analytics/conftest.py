"""Fixtures of the tests of the schema `analytics`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from app.bootstrap import App
from support.analysts import catalogue, login


@pytest.fixture(scope="session")
def shop(server_home: Path, template: str) -> Iterator[App]:
    with catalogue(server_home, template) as app:
        yield app


@pytest.fixture(scope="session")
def analyst(shop: App) -> Iterator[psycopg.Connection]:
    with login(shop) as url, psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def owner(shop: App) -> Iterator[psycopg.Connection]:
    """A connection of the owner; its changes are rolled back at the end unless it commits."""
    with psycopg.connect(shop.settings.database_url or "") as connection:
        yield connection
        connection.rollback()
