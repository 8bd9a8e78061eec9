"""Prints what `lookalike ingest --dry-run` would change."""

from __future__ import annotations

import click

from app.cli.output import print_table
from ingest.preview import PlannedChange, Preview


def print_preview(preview: Preview) -> None:
    """Print the counts, and the first changes of each kind."""
    click.echo(
        f"Nothing is written. {preview.read} rows read: {preview.added} would be added, "
        f"{preview.updated} updated, {preview.unchanged} unchanged, {preview.rejected} rejected; "
        f"{preview.deleted} products would be deleted."
    )
    if preview.changes:
        print_table(("change", "sku", "line", "columns or reason"), map(_row, preview.changes))
        total = preview.added + preview.updated + preview.deleted
        listed = sum(change.change != "rejected" for change in preview.changes)
        if total > listed:
            click.echo(f"{total - listed} more changes.")


def _row(change: PlannedChange) -> tuple[object, ...]:
    about = change.reason or ", ".join(change.columns)
    return change.change, change.sku, change.line, about
