"""Rejects the rows of a source whose sku is in an earlier row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.catalog.ingest_run import IngestRun
from ingest.sources import SourceReject, SourceRow


def reject_repeated(
    run: IngestRun, rows: Sequence[SourceRow | SourceReject]
) -> list[SourceRow | SourceReject]:
    """The rows, with a reject for each row whose sku the run has seen, in these rows or before."""
    first: dict[str, int] = {}
    for row in rows:
        if (sku := _sku(row)) is not None:
            first.setdefault(sku, row.line)
    before = run.seen_before(first) if first else {}
    seen = set(before)
    return [_checked(row, seen, first | before) for row in rows]


def _sku(row: SourceRow | SourceReject) -> str | None:
    return row.product.sku if isinstance(row, SourceRow) else row.sku


def _checked(
    row: SourceRow | SourceReject, seen: set[str], lines: Mapping[str, int]
) -> SourceRow | SourceReject:
    """The row, or a reject if its sku is among those `seen`, to which it is added."""
    sku = _sku(row)
    if sku is None:
        return row
    repeated = sku in seen
    seen.add(sku)
    if isinstance(row, SourceReject) or not repeated:
        return row
    return SourceReject(row.line, sku, f"the sku is already in line {lines[sku]} of the source")
