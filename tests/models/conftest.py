"""Fixtures of the tests of models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.bootstrap import App
from app.config import Settings
from support.model_removal import ROWS, choose
from support.sources import write_source


@pytest.fixture
def open_app(settings: Settings) -> Iterator[Callable[[], App]]:
    """More services on the same database, like those of other processes."""
    apps: list[App] = []

    def open_() -> App:
        apps.append(App(settings, choose=choose))
        return apps[-1]

    yield open_
    for each in apps:
        each.close()


@pytest.fixture
def filled(open_app: Callable[[], App], tmp_path: Path) -> App:
    """A catalogue of forty products under the first model, indexed."""
    app = open_app()
    write_source(tmp_path / "in", ROWS)
    app.indexer.rebuild()
    return app
