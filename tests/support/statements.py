"""Tells which path answered a search, and what two paths have to answer alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event

from app.bootstrap import App
from app.search.vector_cache import VectorCache
from app.types import Query, SearchResult


class Slow:
    """Counts the statements of searches that the planner answers."""

    def __init__(self, app: App) -> None:
        self.statements = 0
        event.listen(app.search_engine, "before_cursor_execute", self._count)

    def _count(self, *_: Any) -> None:
        self.statements += 1

    def took(self) -> bool:
        """Whether there was such a search since the last call."""
        found, self.statements = self.statements, 0
        return found > 0


def told(result: SearchResult) -> tuple[object, ...]:
    """What both ways tell: labels of similarities are cached for a while, and one statement does
    not count the products without a picture."""
    short = result.plan.shortfall_counts
    short = short and replace(short, without_picture=None)
    matches = [replace(match, means=None) for match in result.matches]
    return matches, result.dropped, short, result.plan.not_tried


def in_statements(
    app: App, query: Query, monkeypatch: pytest.MonkeyPatch, cache: VectorCache | None = None
) -> SearchResult:
    """The result of several statements, after which the index is open."""
    with monkeypatch.context() as patch:
        patch.setattr(app.search, "_in_one_statement", lambda *_: None)
        found = app.search.search(query, cache)
    app.search.open_index()
    return found
