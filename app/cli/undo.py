"""`lookalike undo`: take back what an ingest, a deletion or an undo changed."""

from __future__ import annotations

import time
from typing import Any

import click

from app.bootstrap import App
from app.catalog.undo import UndoReport
from app.cli.output import as_json, note, print_json, print_table
from app.types import KeptRun

MAX_LISTED = 20
PROGRESS_INTERVAL_S = 10.0
COUNTS = ("added", "updated", "deleted", "restored")


@click.command()
@click.argument("run", type=click.IntRange(1, 2**63 - 1), required=False)
@as_json
def undo(run: int | None, as_json: bool) -> None:
    """Undo RUN, an ingest, deletion or undo; without RUN, list the last ones.

    Products that the run changed or deleted become as they were, with their pictures and
    embeddings, and products that it added are deleted. What was changed since is left and named.
    An undo is a run too, and can be undone.
    """
    with App() as app:
        if run is None:
            _print_runs(app.catalog.undoable_runs(MAX_LISTED), as_json=as_json)
            return
        report = app.catalog.undo(run, _Progress())
    if as_json:
        print_json(report.as_dict())
    else:
        click.echo(_summary(report))
    for message in _notes(report):
        note(message)


class _Progress:
    """Prints how far an undo is, every PROGRESS_INTERVAL_S seconds."""

    def __init__(self) -> None:
        self._began = self._printed = time.monotonic()

    def __call__(self, report: UndoReport) -> None:
        now = time.monotonic()
        if now - self._printed >= PROGRESS_INTERVAL_S:
            self._printed = now
            note(f"{report.products} products after {now - self._began:.0f} s")


def _print_runs(runs: list[KeptRun], *, as_json: bool) -> None:
    if as_json:
        print_json([_values(each) for each in runs])
    elif runs:
        rows = [tuple(_values(each).values()) for each in runs]
        print_table(tuple(_values(runs[0])), rows)
    else:
        note("There is no run that can be undone.")


def _values(run: KeptRun) -> dict[str, Any]:
    return {
        "run": run.id, "kind": run.kind, "state": run.state,
        "began": f"{run.started_at:%Y-%m-%d %H:%M}",
        **{name: run.report.get(name) for name in COUNTS},
        "kB": -(-run.bytes // 1000), "source": run.source,
    }  # fmt: skip


def _summary(report: UndoReport) -> str:
    return (
        f"Run {report.run} is undone, as run {report.undo}: {report.restored} products restored, "
        f"{report.deleted} deleted, {report.as_before} as before already, "
        f"{report.changed_since} changed since and left."
    )


def _notes(report: UndoReport) -> list[str]:
    notes = []
    if report.left:
        more = report.changed_since - len(report.left)
        names = ", ".join(report.left) + (f" and {more:,} more" if more else "")
        notes.append(f"Changed since the run, and left as they are: {names}.")
    if report.pictures_lost:
        notes.append(
            f"{report.pictures_lost} pictures are not kept any more; ingest their products again."
        )
    for name, count in report.without_embedding.items():
        notes.append(
            f"{count} restored pictures have no embedding of {name}; run `lookalike model embed "
            f"{name}`."
        )
    return notes
