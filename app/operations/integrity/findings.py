"""Findings of an integrity check: kind of damage, count, examples, advice and repair."""

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
"""Something is wrong or lost; something should be improved; for information only."""

FindDamage = Callable[[], "Finding | None"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of damage: `count` of `what` (a plural), a few `examples`, and advice.

    `repaired` describes the repair; None if there was none or it did not help.
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
        """Whether an operator still has to act."""
        return self.severity != "info" and self.repaired is None


@dataclass(frozen=True, slots=True)
class IntegrityReport:
    """All findings, and the checks that were left out, with reasons."""

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
    """Find damage, repair it if `repair` is given, and verify the repair by finding again."""
    finding = find()
    if finding is None or repair is None:
        return finding
    try:
        repaired = repair()
    except LookalikeError as exc:
        return replace(finding, advice=f"{finding.advice} It could not be repaired: {exc}")
    remaining = find()
    return replace(finding, repaired=repaired) if remaining is None else remaining


@dataclass(frozen=True, slots=True)
class IntegrityQuery:
    """A query that returns one row per damaged object, and the meaning of such a row.

    `values` are bound to `sql`; `repair` returns a sentence on what it did.
    """

    kind: str
    severity: Severity
    what: str
    sql: str
    advice: str
    repair: Callable[[Engine], str] | None = None
    values: Mapping[str, str] = field(default_factory=dict)

    def run(self, engine: Engine) -> Finding | None:
        """The current damage of this kind; None if there is none."""
        with snapshot(engine) as connection:
            rows = integrity.check(connection, self.sql, **self.values)
        if not rows.count:
            return None
        return Finding(self.kind, self.severity, self.what, rows.count, rows.examples, self.advice)


def run_queries(
    engine: Engine, queries: Iterable[IntegrityQuery], repair: bool
) -> Iterator[Finding]:
    """Run each query in its own snapshot, with its repair if `repair` is set."""
    for query in queries:
        fix = partial(query.repair, engine) if repair and query.repair else None
        finding = find_and_repair(partial(query.run, engine), fix)
        if finding is not None:
            yield finding


class ExampleTally:
    """Counts damaged objects and keeps the first few names."""

    def __init__(self) -> None:
        self.count = 0
        self._examples: list[str] = []

    def add(self, name: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self._examples) < EXAMPLES:
            self._examples.append(name)

    def finding(self, kind: str, severity: Severity, what: str, advice: str) -> Finding | None:
        """The finding for the counted objects; None if there are none."""
        if not self.count:
            return None
        return Finding(kind, severity, what, self.count, tuple(self._examples), advice)
