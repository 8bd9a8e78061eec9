"""A dry run: what an ingest would change, without writing or encoding anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.catalog.batch_write import BatchChange, PlannedWrite
from app.catalog.ingest_run import IngestRun
from app.catalog.service import CatalogService
from ingest.pipeline import check_prunable
from ingest.prefetch import in_chunks
from ingest.prepare import Preparer
from ingest.rejects_file import RejectFile
from ingest.sources import SourceReject, SourceRow

MAX_SHOWN = 10
"""Changes of each kind that a preview lists."""


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """One change of a run: "added", "updated" in `columns`, "rejected" with a reason, "deleted"."""

    change: str
    sku: str | None
    columns: tuple[str, ...] = ()
    line: int | None = None
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The values that it has, by name."""
        values = {
            "change": self.change, "sku": self.sku, "columns": list(self.columns),
            "line": self.line, "reason": self.reason,
        }  # fmt: skip
        return {name: value for name, value in values.items() if value not in (None, [])}


@dataclass(slots=True)
class Preview:
    """The counts of a run that would follow, and the first changes of each kind.

    `images_rejected` counts refused pictures. `refused` is why the run would not start, or
    not delete.
    """

    read: int = 0
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    deleted: int = 0
    images_rejected: int = 0
    rejected_without_sku: int = 0
    changes: list[PlannedChange] = field(default_factory=list)
    refused: str | None = None
    _listed: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """The counts and changes by name."""
        counts = {name: getattr(self, name) for name in COUNTS}
        changes = [change.as_dict() for change in self.changes]
        return {"dry_run": True, **counts, "refused": self.refused, "changes": changes}

    def list(self, change: PlannedChange) -> None:
        """Add a change, unless MAX_SHOWN of its kind are listed."""
        if self._listed[change.change] < MAX_SHOWN:
            self.changes.append(change)
        self._listed[change.change] += 1


COUNTS = ("read", "added", "updated", "unchanged", "rejected", "deleted", "images_rejected")


def preview(
    catalog: CatalogService,
    preparer: Preparer,
    rows: Iterable[SourceRow | SourceReject],
    rejects: RejectFile,
) -> Preview:
    """Compare the rows with the catalogue; reads and decodes their pictures."""
    result = Preview()
    for chunk_rows in in_chunks(rows):
        chunk = preparer.prepare(chunk_rows)
        rejects.write(chunk.rejects)
        result.read += len(chunk.rows)
        result.rejected += chunk.refused_rows
        result.images_rejected += sum(each.image is not None for each in chunk.rejects)
        result.rejected_without_sku += sum(each.sku is None for each in chunk.rejects)
        _list_rejects(result, chunk.rejects)
        for write in catalog.plan(chunk.entries):
            _count(result, write)
    return result


def preview_prune(result: Preview, run: IngestRun) -> None:
    """Count the products that the run would delete. Raises BadSource if it would refuse to."""
    check_prunable(result.read, result.rejected, result.rejected_without_sku)
    unseen = run.count_unseen(MAX_SHOWN)
    result.deleted = unseen.count
    for sku in unseen.examples:
        result.list(PlannedChange("deleted", sku))


def _list_rejects(result: Preview, rejects: Sequence[SourceReject]) -> None:
    for each in rejects:
        reason = each.reason if each.image is None else f"{each.image}: {each.reason}"
        result.list(PlannedChange("rejected", each.sku, line=each.line, reason=reason))


def _count(result: Preview, write: PlannedWrite) -> None:
    match write.change:
        case BatchChange.ADDED:
            result.added += 1
        case BatchChange.UPDATED:
            result.updated += 1
        case BatchChange.UNCHANGED:
            result.unchanged += 1
            return
    result.list(PlannedChange(write.change.value, write.entry.product.sku, write.columns))
