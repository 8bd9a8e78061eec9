"""What a check of the catalogue finds: each kind of damage, how much of it, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal

from sqlalchemy import Engine

from app.db.engine import snapshot
from app.db.queries import integrity
from app.db.queries.integrity import EXAMPLES
from app.errors import LookalikeError

Severity = Literal["error", "warning", "info"]
"""Something is wrong or lost; something is worse than it could be; something to know."""


FindDamage = Callable[[], "Finding | None"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of damage: `count` of `what` (a plural), a few by name, and what to do about it.

    `repaired` says what was done; None where nothing was, or it did not help.
    """

    kind: str
    severity: Severity
    what: str
    count: int
    examples: tuple[str, ...]
    advice: str
    repaired: str | None = None

    @property
    def wrong(self) -> bool:
        """Whether somebody must still do something."""
        return self.severity != "info" and self.repaired is None


@dataclass(frozen=True, slots=True)
class IntegrityReport:
    """All findings, and what was not looked at and why."""

    findings: tuple[Finding, ...]
    left_out: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        return not any(finding.wrong for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """`healthy`, `findings` and `left_out` as plain values."""
        findings = [asdict(finding) for finding in self.findings]
        return {"healthy": self.healthy, "findings": findings, "left_out": list(self.left_out)}


def find_and_repair(find: FindDamage, repair: Callable[[], str] | None) -> Finding | None:
    """Find damage, repair it if that is wanted, and look again whether it is gone."""
    found = find()
    if found is None or repair is None:
        return found
    try:
        done = repair()
    except LookalikeError as exc:
        return replace(found, advice=f"{found.advice} It could not be repaired: {exc}")
    left = find()
    return replace(found, repaired=done) if left is None else left


@dataclass(frozen=True, slots=True)
class IntegrityQuery:
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
            seen = integrity.check(connection, self.sql, **self.values)
        if not seen.count:
            return None
        return Finding(self.kind, self.severity, self.what, seen.count, seen.examples, self.advice)


def run_queries(
    engine: Engine, questions: Iterable[IntegrityQuery], repair: bool
) -> Iterator[Finding]:
    """Ask each in a snapshot of its own, and repair what can be if that is wanted."""
    for question in questions:
        by = partial(question.repair, engine) if repair and question.repair else None
        found = find_and_repair(partial(question.ask, engine), by)
        if found is not None:
            yield found


ProgressCallback = Callable[[str], None]
"""Is told often how far the check has come; says it to people now and then."""


class ExampleTally:
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
