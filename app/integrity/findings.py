"""What a check of the catalogue finds: each kind of damage, how much of it, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from app.errors import LookalikeError

Severity = Literal["error", "warning", "info"]
"""Something is wrong or lost; something is worse than it could be; something to know."""

Find = Callable[[], "Finding | None"]


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
class Report:
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


def mended(find: Find, repair: Callable[[], str] | None) -> Finding | None:
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
