"""Fixtures of the tests of models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.bootstrap import App
from app.config import Settings
from support.model_removal import ROWS, choose
from support.open_apps import open_apps
from support.sources import write_source


@pytest.fixture
def open_app(settings: Settings) -> Iterator[Callable[..., App]]:
    with open_apps(settings, choose) as open_:
        yield open_


@pytest.fixture
def filled(open_app: Callable[[], App], tmp_path: Path) -> App:
    """A catalogue of forty products under the first model, indexed."""
    app = open_app()
    write_source(tmp_path / "in", ROWS)
    app.indexer.rebuild()
    return app
