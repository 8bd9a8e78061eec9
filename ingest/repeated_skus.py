"""Rejects the rows of a source whose sku is in an earlier row."""

from __future__ import annotations

from collections.abc import Sequence

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
    if first:
        first |= run.seen_before(first)
    return [_checked(row, first) for row in rows]


def _sku(row: SourceRow | SourceReject) -> str | None:
    return row.product.sku if isinstance(row, SourceRow) else row.sku


def _checked(row: SourceRow | SourceReject, first: dict[str, int]) -> SourceRow | SourceReject:
    if isinstance(row, SourceReject) or first[row.product.sku] == row.line:
        return row
    before = first[row.product.sku]
    return SourceReject(
        row.line, row.product.sku, f"the sku is already in line {before} of the source"
    )
