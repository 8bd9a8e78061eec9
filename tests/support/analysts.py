"""Shared by tests of the schema `analytics`: a catalogue to read, and logins of analysts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from app.bootstrap import App
from app.config import Settings
from app.db.embedded import server as embedded_server
from app.operations.migrate import migrate
from support.colours import choose_colours
from support.shop import add

BRANDS = ("Kestrel", "Solano", None)
CATEGORIES = ("lamp", "chair", "mug")
COLOURS = ("blue", "red")


@contextmanager
def catalogue(home: Path, template: str) -> Iterator[App]:
    """A database of 90 products, some with several photos and some that share one."""
    name = f"analytics_{uuid4().hex[:12]}"
    with psycopg.connect(embedded_server.url(home, "postgres"), autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        url = embedded_server.url(home, name)
        try:
            with App(Settings(home=home / name, database_url=url), choose=choose_colours) as app:
                migrate(app.engine)  # settings of a database are not copied from a template
                _fill(app)
                yield app
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _fill(app: App) -> None:
    for n in range(90):
        # Every tenth shows the photo of its predecessor, every third two more photos of its own.
        seeds = [n - 1 if n % 10 == 9 else n] + ([200 + n, 300 + n] if n % 3 == 0 else [])
        add(
            app, {f"DEMO-{n:04}": seeds},
            brand=BRANDS[n % 3], category=CATEGORIES[n % 9 // 3], colour=COLOURS[n % 2],
            year=2015 + n % 7 if n % 5 else None, price=n * 1.5 if n % 4 else None,
            currency="EUR", attributes={"packaged": n % 2},
        )  # fmt: skip


@contextmanager
def login(app: App) -> Iterator[str]:
    """The URL of a database for a new analyst."""
    assert app.settings.database_url is not None
    name = f"ada_{uuid4().hex[:8]}"
    with psycopg.connect(app.settings.database_url, autocommit=True) as server:
        server.execute(f"CREATE ROLE {name} LOGIN IN ROLE lookalike_analyst")
        try:
            yield app.settings.database_url.replace("postgres@", f"{name}@")
        finally:
            server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [name]
            )
            server.execute(f"DROP ROLE {name}")


def rows(connection: psycopg.Connection, sql: str, values: Any = None) -> list[Any]:
    return connection.execute(sql, values).fetchall()  # type: ignore[arg-type]
