"""Counting what is wrong while many rows go by, with a few of them remembered by name."""

from __future__ import annotations

from collections.abc import Callable

from app.db.queries.integrity import EXAMPLES
from app.integrity.findings import Finding, Severity

Tick = Callable[[str], None]
"""Is told often how far the check has come; says it to people now and then."""


class Tally:
    """A count that remembers the first few names."""

    def __init__(self) -> None:
        self.count = 0
        self._examples: list[str] = []

    def add(self, name: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self._examples) < EXAMPLES:
            self._examples.append(name)

    def finding(self, kind: str, severity: Severity, what: str, advice: str) -> Finding | None:
        """The finding of what was counted; None if nothing was."""
        if not self.count:
            return None
        return Finding(kind, severity, what, self.count, tuple(self._examples), advice)
