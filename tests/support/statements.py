"""Tells which path answered a search."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event

from app.bootstrap import App


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
