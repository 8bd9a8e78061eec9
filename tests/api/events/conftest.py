"""The served catalogue of `event_shop`."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from app.bootstrap import App
from support.api_client import api_served
from support.event_shop import Shop
from support.shop import add, numbered


@pytest.fixture
def shop(app: App, sql: psycopg.Connection) -> Iterator[Shop]:
    add(app, numbered(6), brand="Kestrel")
    with api_served(app) as served:
        key = app.api_keys.create("search", records="queries")
        yield Shop(app, served.with_key(key), sql)
