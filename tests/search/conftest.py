"""Fixtures of the tests of search."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import event

from app.bootstrap import App
from support import fast_path_shop
from support.filtered_shop import ask
from support.statements import Slow


@pytest.fixture
def shop(app: App, monkeypatch: pytest.MonkeyPatch) -> App:
    """The products of `filtered_shop`, whose ids are cached and read again whenever needed."""
    monkeypatch.setattr("app.search.filter_cache.MIN_USE_S", 0.0)
    monkeypatch.setattr("app.search.filter_cache.WAIT_S", 60.0)
    for _ in range(3):
        ask(app)
    return app


@pytest.fixture
def in_turn(shop: App) -> Iterator[list[str]]:
    """The statements of searches that the planner answered."""
    seen: list[str] = []
    event.listen(shop.search_engine, "before_cursor_execute", lambda *all_: seen.append(all_[2]))
    yield seen


@pytest.fixture
def slow(app: App) -> Slow:
    """The products of `fast_path_shop`, whose index has answered once."""
    fast_path_shop.ask(app)
    return Slow(app)


@pytest.fixture
def years(app: App) -> App:
    """The services over the products of `years_shop`."""
    return app
