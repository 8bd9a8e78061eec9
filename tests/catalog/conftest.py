"""Fixtures of the tests of the catalogue."""

from __future__ import annotations

import pytest

from app.bootstrap import App
from app.catalog import fallback_index
from app.db.queries import pgvector_index
from support.fallback import ROWS
from support.shop import add, numbered


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten rows are enough for an index."""
    monkeypatch.setattr(pgvector_index, "MIN_ROWS", 10)


@pytest.fixture
def full(app: App, few: None) -> App:
    """Sixty products without a build, and without pgvector's index."""
    add(app, numbered(ROWS), colour="red")
    return app


@pytest.fixture
def indexed(full: App) -> App:
    """The same with the index."""
    assert [model.id for model in fallback_index.maintain(full.engine)] == [1]
    return full
