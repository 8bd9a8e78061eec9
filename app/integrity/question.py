"""A question in SQL that names what is wrong, and what is to be done then."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import Engine

from app.db.engine import snapshot
from app.db.queries import integrity
from app.integrity.findings import Finding, Severity, mended


@dataclass(frozen=True, slots=True)
class Question:
    """What a row of the answer means; `repair` returns a sentence about what it did."""

    kind: str
    severity: Severity
    what: str
    sql: str
    advice: str
    repair: Callable[[Engine], str] | None = None
    values: Mapping[str, str] = field(default_factory=dict)

    def ask(self, engine: Engine) -> Finding | None:
        """What is wrong now; None if nothing is."""
        with snapshot(engine) as connection:
            seen = integrity.look(connection, self.sql, **self.values)
        if not seen.count:
            return None
        return Finding(self.kind, self.severity, self.what, seen.count, seen.examples, self.advice)


def ask_all(engine: Engine, questions: Iterable[Question], repair: bool) -> Iterator[Finding]:
    """Ask each in a snapshot of its own, and repair what can be if that is wanted."""
    for question in questions:
        by = partial(question.repair, engine) if repair and question.repair else None
        found = mended(partial(question.ask, engine), by)
        if found is not None:
            yield found
