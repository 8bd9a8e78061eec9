"""Fixtures of the tests of operations."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.bootstrap import App
from support.colours import photo
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
